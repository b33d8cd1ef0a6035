"""Services that are signed in to, when they fail, forget or withdraw."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.kvstore.signed_in.drive_files import named
from tests.kvstore.signed_in.kinds import DROPBOX, GCS, GDRIVE, Kind, of
from tests.kvstore.signed_in.told_doubles import change, expire
from tests.servers.double import Fault
from tests.servers.double_process import DoubleProcess

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    ObjectExists,
    PermissionDenied,
    StorageFull,
)


@pytest.mark.parametrize(
    ("kind", "behaves"),
    [
        pytest.param(GCS, {"persists": 1 << 20}, id="gcs"),
        pytest.param(DROPBOX, {}, id="dropbox"),
        pytest.param(GDRIVE, {"persists": 512 << 10}, id="gdrive"),
        pytest.param(
            GDRIVE,
            {"persists": 512 << 10, "tells_hashes": True},
            id="gdrive-hashes",
            marks=pytest.mark.soak,
        ),
    ],
    indirect=["kind"],
)
def test_a_fifth_of_the_requests_fails(
    kind: Kind,
    place: Backend,
    double: DoubleProcess[Any],
    folder: str,
    behaves: dict[str, object],
) -> None:
    double.tell(change, **behaves)
    double.fail(
        rate=0.2,
        seed=5,
        kinds=[Fault.UNAVAILABLE, Fault.TOO_MANY, Fault.RESET, Fault.LOST, Fault.CUT],
    )
    value = bytes(range(256)) * (kind.part // 100)
    for number in range(10):
        with place.open_writer(f"items/{number}", if_absent=number % 2 == 0) as writer:
            writer.write(value[: 1000 * number])
    for if_absent in (True, False):
        with place.open_writer("items/large", if_absent=if_absent) as writer:
            writer.write(value)
    place.move("items/1", "moved/1")
    place.move_if_absent("items/3", "moved/3")
    place.delete("items/2")
    assert place.load("items/large") == value
    double.fail()
    assert sorted(entry.name for entry in place.list("items")) == [
        *(str(number) for number in (0, *range(4, 10))),
        "large",
    ]
    assert place.load("moved/1") == value[:1000]
    assert place.load("moved/3") == value[:3000]
    if kind is GDRIVE:  # where a list shows one of several files of a name
        for name in ("0", "4", "large", "moved", "items"):
            assert len(double.tell(named, folder, name)) == 1, f"{name} is there once"


@pytest.mark.parametrize("parts", [0, 2])
def test_a_reply_that_was_lost_is_no_conflict(
    kind: Kind, place: Backend, double: DoubleProcess[Any], folder: str, parts: int
) -> None:
    value = bytes(parts * kind.part + 5)
    place.store("before", b"value")
    double.fail(rate=1, kinds=[Fault.LOST], limit=3)
    with place.open_writer("item", if_absent=True) as writer:
        writer.write(value)
    double.fail()
    assert place.load("item") == value
    with pytest.raises(ObjectExists), place.open_writer("item", if_absent=True) as writer:
        writer.write(b"other")
    if kind is GDRIVE:
        assert double.tell(named, folder, "item") == [value]


@of(GCS, GDRIVE)
def test_reading_goes_on_in_the_value_that_it_began_or_says_so(
    place: Backend, double: DoubleProcess[Any]
) -> None:
    value = bytes(range(256)) * 20_000
    place.store("item", value)
    double.fail(rate=1, kinds=[Fault.CUT], limit=3)
    assert place.load("item", offset=100) == value[100:]
    double.fail(rate=1, kinds=[Fault.CUT], limit=1)
    with place.open_reader("item") as reader:
        reader.read(1000)
        place.store("item", bytes(len(value)))
        with pytest.raises(BackendError, match="replaced"):
            [*iter(lambda: reader.read(1 << 20), b"")]


def test_an_access_token_that_expired_is_renewed(
    kind: Kind, place: Backend, double: DoubleProcess[Any]
) -> None:
    double.tell(expire)
    place.store("item", b"value")
    double.tell(expire)
    place.store("large", bytes(2 * kind.part + 1))
    double.tell(expire)
    assert place.load("item") == b"value"


def test_a_grant_that_was_withdrawn_names_the_way_back(
    kind: Kind, place: Backend, double: DoubleProcess[Any], options: dict[str, Any]
) -> None:
    place.store("item", b"value")
    double.tell(change, revoked=True)
    for attempt in (
        lambda: place.load("item"),
        lambda: place.store("item", b"x"),
        open_place(f"{kind.url}elsewhere", **options).open,
    ):
        with pytest.raises(PermissionDenied, match=kind.way_back) as caught:
            attempt()
        assert not caught.value.retryable
        assert kind.secret(options) not in f"{caught.value!r} {place!r}"


@of(DROPBOX, GDRIVE)
def test_a_full_account(kind: Kind, place: Backend, double: DoubleProcess[Any]) -> None:
    double.tell(change, room=1000)
    for size in (2000, 2 * kind.part):
        with pytest.raises(StorageFull, match="no room"):
            place.store("item", bytes(size))
    assert not place.info("item").exists
    assert place.quota().limit == 1000


def test_killed_and_started_again_in_the_middle(
    kind: Kind, place: Backend, double: DoubleProcess[Any]
) -> None:
    value = bytes(range(256)) * (kind.part // 64)
    with place.open_writer("item", size=len(value)) as writer:
        writer.write(value[: 2 * kind.part + 1])
        double.kill()
        back = threading.Timer(1, double.start)
        back.start()
        writer.write(value[2 * kind.part + 1 :])
    back.join()
    assert place.load("item") == value


def test_an_answer_that_does_not_come_is_asked_for_again(
    place: Backend, double: DoubleProcess[Any], url: str, options: dict[str, Any]
) -> None:
    place.store("item", b"value")
    with open_place(url, **{**options, "timeout": 1}) as hasty:
        double.fail(rate=1, kinds=[Fault.STALL], stall=4, limit=2)
        assert hasty.load("item") == b"value"
        hasty.store("item", b"another")
    assert place.load("item") == b"another"


@of(GCS, GDRIVE)
def test_a_checkpoint_holds_no_address_of_an_upload(kind: Kind, place: Backend) -> None:
    writer = place.open_writer("item")
    writer.write(bytes(kind.part + 1))
    token = writer.checkpoint()
    assert "upload_id" not in token
    assert "http" not in token
    place.resume_writer(token).commit()
    assert place.info("item").size == kind.part + 1


def test_nobody_there_is_an_error_that_may_pass(kind: Kind, options: dict[str, Any]) -> None:
    nobody = {**options, "endpoint": "http://127.0.0.1:9", "attempts": 2, "first_pause": 0.01}
    place = open_place(f"{kind.url}x", **nobody)
    with pytest.raises(BackendConnectionError) as caught:
        place.open()
    assert caught.value.retryable
    assert kind.secret(options) not in f"{caught.value} {place!r}"
