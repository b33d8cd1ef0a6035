"""Google Drive when it fails, limits, forgets or withdraws."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.kvstore.gdrive.places import PART, named, url_of
from tests.kvstore.told_doubles import change, expire
from tests.servers.double import Fault
from tests.servers.double_process import DoubleProcess
from tests.servers.drive_double import DriveDouble

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    PermissionDenied,
    StorageFull,
)


class TestFaults:
    @pytest.mark.parametrize("hashes", [False, pytest.param(True, marks=pytest.mark.soak)])
    def test_a_fifth_of_the_requests_fails(
        self, place: Backend, double: DoubleProcess[DriveDouble], hashes: bool
    ) -> None:
        double.tell(change, persists=512 << 10, tells_hashes=hashes)
        double.fail(
            rate=0.2,
            seed=5,
            kinds=[Fault.UNAVAILABLE, Fault.TOO_MANY, Fault.RESET, Fault.LOST, Fault.CUT],
        )
        value = bytes(range(256)) * 10_000
        for number in range(6):
            with place.open_writer(f"items/{number}", if_absent=True) as writer:
                writer.write(value[: 1000 * number])
        for terms in ({"if_absent": True}, {}):
            with place.open_writer("items/large", **terms) as writer:  # type: ignore[arg-type]
                writer.write(value)
        place.move("items/1", "moved/1")
        place.delete("items/2")
        assert place.load("items/large") == value
        double.fail()
        names = sorted(entry.name for entry in place.list("items"))
        assert names == ["0", "3", "4", "5", "large"]
        assert place.load("moved/1") == value[:1000]
        for name in ("0", "3", "large", "moved", "items"):
            assert len(double.tell(named, url_of(place)[7:], name)) == 1, f"{name} is there once"

    def test_limits_of_requests_are_waited_out(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        double.tell(change, limited=3)
        place.store("item", b"value")
        double.tell(change, limited=1)
        assert place.load("item") == b"value"

    @pytest.mark.parametrize("size", [5, 2 * PART + 5])
    def test_a_reply_that_was_lost_is_no_conflict(
        self, place: Backend, double: DoubleProcess[DriveDouble], size: int
    ) -> None:
        place.store("before", b"value")
        double.fail(rate=1, kinds=[Fault.LOST], limit=3)
        with place.open_writer("item", if_absent=True) as writer:
            writer.write(bytes(size))
        double.fail()
        assert double.tell(named, url_of(place)[7:], "item") == [bytes(size)]

    def test_reading_goes_on_in_the_value_that_it_began_or_says_so(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        value = bytes(range(256)) * 10_000
        place.store("item", value)
        double.fail(rate=1, kinds=[Fault.CUT], limit=3)
        assert place.load("item", offset=100) == value[100:]
        double.fail(rate=1, kinds=[Fault.CUT], limit=1)
        with place.open_reader("item") as reader:
            reader.read(1000)
            place.store("item", bytes(len(value)))
            with pytest.raises(BackendError, match="replaced"):
                [*iter(lambda: reader.read(1 << 20), b"")]

    def test_a_grant_that_was_withdrawn_names_the_way_back(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        place.store("item", b"value")
        double.tell(change, revoked=True)
        for attempt in (lambda: place.load("item"), lambda: place.store("item", b"x")):
            with pytest.raises(PermissionDenied, match="backupgw store auth NAME") as caught:
                attempt()
            assert not caught.value.retryable
            assert str(options["refresh_token"]) not in f"{caught.value!r} {place!r}"

    def test_an_access_token_that_expired_is_renewed(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        double.tell(expire)
        place.store("item", b"value")
        double.tell(expire)
        assert place.load("item") == b"value"

    def test_a_full_account(self, place: Backend, double: DoubleProcess[DriveDouble]) -> None:
        double.tell(change, room=1000)
        for size in (2000, 2 * PART):
            with pytest.raises(StorageFull, match="no room"):
                place.store("item", bytes(size))
        assert not place.info("item").exists
        assert place.quota().limit == 1000

    def test_killed_and_started_again_in_the_middle(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        value = bytes(range(256)) * (PART // 64)
        with place.open_writer("item", size=len(value)) as writer:
            writer.write(value[: 2 * PART + 1])
            double.kill()
            back = threading.Timer(1, double.start)
            back.start()
            writer.write(value[2 * PART + 1 :])
        back.join()
        assert place.load("item") == value

    def test_an_answer_that_does_not_come_is_asked_for_again(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        place.store("item", b"value")
        with open_place(url_of(place), **{**options, "timeout": 1}) as hasty:
            double.fail(rate=1, kinds=[Fault.STALL], stall=4, limit=2)
            assert hasty.load("item") == b"value"

    def test_a_checkpoint_holds_no_address_of_an_upload(self, place: Backend) -> None:
        writer = place.open_writer("item")
        writer.write(bytes(PART + 1))
        token = writer.checkpoint()
        assert "upload_id" not in token
        assert "http" not in token
        place.resume_writer(token).commit()
        assert place.info("item").size == PART + 1

    def test_nobody_there_is_an_error_that_may_pass(self, options: dict[str, Any]) -> None:
        quick = {**options, "endpoint": "http://127.0.0.1:9", "attempts": 2}
        with pytest.raises(BackendConnectionError) as caught:
            open_place("gdrive:x", **quick).open()
        assert caught.value.retryable
