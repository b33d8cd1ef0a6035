"""Drime refuses, breaks off, or answers half: what becomes of a write and a read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from tests.kvstore.drime.places import PART, put, sizes
from tests.servers.double import Fault, Faults
from tests.servers.drime_double import DrimeDouble

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.drime import Drime
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    StorageFull,
)
from backupgw.kvstore.conformance import values
from backupgw.kvstore.layers.retry_schedule import Schedule


@pytest.mark.parametrize("header", [1, None], ids=["Retry-After", "without"])
def test_too_many_requests_are_waited_for_by_every_call(
    drime: DrimeDouble, quick: Backend, header: int | None
) -> None:
    put(quick, "data/ab/blob", b"value")
    calls: dict[str, Callable[[], object]] = {
        "upload": lambda: put(quick, "data/ab/new", b"value"),
        "parts": lambda: put(quick, "data/ab/large", bytes(PART + 1)),
        "load": lambda: quick.load("data/ab/blob"),
        "info": lambda: quick.info("data/ab/blob"),
        "list": lambda: [*quick.list("data/ab")],
        "mkdir": lambda: quick.mkdir("new/folder"),
        "copy": lambda: quick.copy("data/ab/blob", "data/ab/copy"),
        "move": lambda: quick.move("data/ab/copy", "data/ab/moved"),
        "quota": quick.quota,
        "delete": lambda: quick.delete("data/ab/moved"),
        "rmdir": lambda: quick.rmdir("new/folder"),
    }
    if header is not None:
        # Those that pydrime never repeats, and one that it does.
        calls = {what: calls[what] for what in ("upload", "load", "info")}
    for what, call in calls.items():
        drime.api.faults = Faults(
            1.0, kinds=[Fault.TOO_MANY], retry_after=header, limit=3 if header is None else 1
        )
        start = time.monotonic()
        call()
        assert drime.api.faults.hit == drime.api.faults.limit, what
        assert header is None or time.monotonic() - start >= header, what


def test_one_refusal_holds_everybody_back(drime: DrimeDouble, there: Backend) -> None:
    """Drime counts requests by account: who goes on asking is refused for longer."""
    put(there, "data/ab/blob", b"value")
    drime.switches.per_minute, drime.switches.retry_after = 0, 2
    threading.Timer(0.5, lambda: setattr(drime.switches, "per_minute", None)).start()
    drime.forget_calls()
    threads = [
        threading.Thread(target=lambda: [there.info("data/ab/blob") for _ in range(5)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = drime.api.calls.count(lambda call: call.status == 429)
    assert 1 <= refused <= 4
    assert drime.counts()["list"] == 20 + refused


@pytest.mark.parametrize("size", [1000, 2 * PART], ids=["simple", "parts"])
@pytest.mark.parametrize("if_absent", [False, True], ids=["replace", "create"])
def test_an_answer_that_was_lost_makes_no_second_entry(
    drime: DrimeDouble, quick: Backend, size: int, if_absent: bool
) -> None:
    for number in range(8):
        value = values.make(number, size)
        drime.api.faults = Faults(0.4, kinds=[Fault.LOST], seed=number)
        put(quick, f"data/ab/{number}", value, if_absent=if_absent)
        drime.api.faults = Faults()
        assert quick.load(f"data/ab/{number}") == value
        assert sizes(drime, f"data/ab/{number}") == [size]


def test_a_fifth_of_all_requests_fails(drime: DrimeDouble, quick: Backend) -> None:
    everything = (Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOST, Fault.CUT)
    drime.api.faults = Faults(0.2, kinds=everything, seed=1)
    drime.storage.faults = Faults(0.2, kinds=everything, seed=2)
    expected = {}
    for number in range(25):
        size = (100, 70_000, PART + 100)[number % 3]
        expected[f"data/ab/{number}"] = values.make(number, size)
        put(quick, f"data/ab/{number}", expected[f"data/ab/{number}"], if_absent=True)
    quick.move("data/ab/0", "moved/0")
    expected["moved/0"] = expected.pop("data/ab/0")
    quick.delete("data/ab/1")
    del expected["data/ab/1"]
    for name, value in expected.items():
        assert quick.load(name) == value
        assert quick.load(name, offset=50, size=20) == value[50:70]
    drime.api.faults = drime.storage.faults = Faults()
    assert {f"data/ab/{info.name}" for info in quick.list("data/ab")} | {"moved/0"} == {*expected}


def test_a_service_that_restarts_is_waited_for(drime: DrimeDouble, there: Backend) -> None:
    put(there, "data/ab/old", b"old")
    writer = there.open_writer("data/ab/new")
    writer.write(bytes(PART + 10))
    drime.api.kill()
    drime.storage.kill()

    def back() -> None:
        drime.api.start()
        drime.storage.start()

    timer = threading.Timer(1, back)
    timer.start()
    writer.commit()
    assert there.load("data/ab/old") == b"old"
    assert there.info("data/ab/new").size == PART + 10
    timer.join()


def test_a_service_that_is_gone_is_told_as_such(drime: DrimeDouble) -> None:
    drime.api.kill()
    impatient = Schedule(attempts=2, first=0.01)
    gone = Drime(drime.key, "x", api_url=drime.url, schedule=impatient)
    with pytest.raises(BackendConnectionError, match="connection to Drime failed") as caught:
        gone.open()
    assert caught.value.retryable
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("how", ["incomplete", "short"])
def test_an_upload_that_drime_did_not_finish_is_made_again(
    drime: DrimeDouble, quick: Backend, how: str
) -> None:
    for size in (1000, PART + 1):
        setattr(drime.switches, how, 2)
        value = values.make(1, size)
        put(quick, "data/ab/blob", value, if_absent=size == 1000)
        assert quick.load("data/ab/blob") == value
        assert sizes(drime, "data/ab/blob") == [size]


def test_a_full_account_is_told_as_full(drime: DrimeDouble, there: Backend) -> None:
    drime.switches.capacity = 1000
    put(there, "data/ab/fits", bytes(900))
    for size in (200, PART + 1):
        with pytest.raises(StorageFull, match="exhausted"):
            put(there, "data/ab/blob", bytes(size))
    assert not there.info("data/ab/blob").exists
    assert (there.quota().limit, there.quota().usage) == (1000, 900)
