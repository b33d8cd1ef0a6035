"""Looks for older entries while Drime limits requests: many are one, each sees what it is for."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.kvstore.drime.places import place, second, sizes
from tests.servers.double import Fault, Faults
from tests.servers.drime_double import DrimeDouble

from backupgw.kvstore.backends import drime_looks
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    BackendMustBeOpen,
    ObjectExists,
)

THREADS = 10
OF_ONE_FOLDER = 12


def blobs(count: int, *, salt: str = "") -> list[tuple[str, bytes]]:
    """Values by their names: twelve folders of a repository's, in turn."""
    values = [f"{salt}{number}".encode() * 50 for number in range(count)]
    names = [hashlib.sha256(value).hexdigest() for value in values]
    return [
        (f"data/{number % OF_ONE_FOLDER:02x}/{name}", value)
        for number, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def store(place: Backend, name: str, value: bytes) -> BackendError | None:
    """Store a value that is known by its hash; return what was raised."""
    hashed = name.rpartition("/")[2]
    try:
        with place.open_writer(
            name, size=len(value), if_absent=True, expected_hash=hashed
        ) as writer:
            writer.write(value)
    except BackendError as error:
        return error
    return None


def store_all(
    place: Backend, named: Sequence[tuple[str, bytes]]
) -> list[tuple[str, BackendError | None]]:
    """Store values by ten threads; return what became of each."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [*pool.map(lambda each: (each[0], store(place, *each)), named)]


@pytest.fixture
def limited(drime: DrimeDouble) -> Iterator[Backend]:
    """A place that Drime has told that there were too many requests."""
    made = place(drime.url, drime.key, attempts=3, first_pause=0.01)
    made.create()
    with made:
        made.mkdirs(f"data/{number:02x}" for number in range(OF_ONE_FOLDER))
        drime.api.faults = Faults(1.0, kinds=[Fault.TOO_MANY], limit=1)
        [*made.list("data")]
        assert drime.api.faults.hit == 1
        drime.forget_calls()
        yield made


def test_many_are_one_request(drime: DrimeDouble, limited: Backend) -> None:
    named = blobs(100)
    assert {error for _, error in store_all(limited, named)} == {None}
    counts = drime.counts()
    assert counts["upload"] == 100
    assert counts["list"] <= 50, "each would be one by itself"
    for name, value in named:
        assert limited.load(name) == value


def test_where_nothing_is_limited_each_is_one(drime: DrimeDouble, there: Backend) -> None:
    there.mkdirs(f"data/{number:02x}" for number in range(OF_ONE_FOLDER))
    drime.forget_calls()
    assert {error for _, error in store_all(there, blobs(30))} == {None}
    assert drime.counts() == {"upload": 30, "list": 30}


def test_each_sees_what_others_have_stored(drime: DrimeDouble, limited: Backend) -> None:
    named = blobs(60)
    theirs = {name for name, _ in named[::3]}
    with second(drime) as other:
        for name, value in named[::3]:
            assert store(other, name, value) is None
    became = store_all(limited, named)
    assert {name for name, error in became if isinstance(error, ObjectExists)} == theirs
    assert {name for name, error in became if error is None} == {n for n, _ in named} - theirs
    for name, value in named:
        assert sizes(drime, name) == [len(value)], "one entry of each name"


def test_folders_that_are_larger_than_a_page(drime: DrimeDouble, limited: Backend) -> None:
    """One of those that are looked into together holds more than one answer tells."""
    with second(drime) as other:
        for number in range(205):
            with other.open_writer(f"data/00/{number}", size=1) as writer:
                writer.write(b"x")
        there = blobs(60)[:: OF_ONE_FOLDER // 2]
        for name, value in there:
            assert store(other, name, value) is None
    became = dict(store_all(limited, blobs(60)))
    found = {name for name, error in became.items() if isinstance(error, ObjectExists)}
    assert found == {name for name, _ in there}
    assert all(error is None for name, error in became.items() if name not in found)


def test_deleting_sees_all_entries_of_a_name(drime: DrimeDouble, limited: Backend) -> None:
    named = blobs(24)
    store_all(limited, named)
    with ThreadPoolExecutor(THREADS) as pool:
        [*pool.map(limited.delete, [name for name, _ in named])]
    assert all(sizes(drime, name) == [] for name, _ in named)


def test_what_goes_wrong_is_everybodys(drime: DrimeDouble, limited: Backend) -> None:
    drime.api.faults = Faults(
        1.0,
        kinds=[Fault.RESET],
        only=lambda scope: scope["path"].endswith("/drive/file-entries"),
    )
    became = store_all(limited, blobs(THREADS))
    assert all(isinstance(error, BackendConnectionError) for _, error in became)
    drime.api.faults = Faults()
    assert {error for _, error in store_all(limited, blobs(THREADS, salt="later"))} == {None}


def test_closing_ends_those_that_wait(
    drime: DrimeDouble, limited: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drime_looks, "GATHERING", 600.0)
    ended: list[BackendError | None] = []
    threads = [
        threading.Thread(target=lambda each=each: ended.append(store(limited, *each)), daemon=True)
        for each in blobs(THREADS)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while drime.counts()["upload"] < THREADS:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    limited.close()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert [type(error) for error in ended] == [BackendMustBeOpen] * THREADS
    limited.open()
