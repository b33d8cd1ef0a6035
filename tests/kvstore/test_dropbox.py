"""Dropbox as a place, through its real library, on a double of its API."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
from tests.conftest import SOAK
from tests.kvstore.filled_folders import in_double
from tests.kvstore.told_doubles import change, expire
from tests.servers.double import Fault
from tests.servers.double_process import DoubleProcess
from tests.servers.dropbox_double import DropboxDouble

from backupgw.kvstore import open_place
from backupgw.kvstore.backends import dropbox_names
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.dropbox_names import MARK
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    BackendURLInvalid,
    NameCollision,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from backupgw.kvstore.conformance import Check, Status, Subject, checks
from backupgw.kvstore.layers.retry_schedule import Schedule

PART = 4 << 20


class Keys(NamedTuple):
    """What the double lets in."""

    refresh_token: str
    app_key: str


def keys(double: DropboxDouble) -> Keys:
    return Keys(double.service.refresh_token, double.service.app_key)


def requests(double: DropboxDouble) -> list[str]:
    found = [call.path.removeprefix("/2/files/") for call in double.calls]
    double.calls.clear()
    return found


def fill_folder(double: DropboxDouble, path: str, names: Sequence[str]) -> None:
    for name in names:
        double.service._upload({"path": f"{path}/{name}", "mode": "add"}, b"")


def empty_folder(double: DropboxDouble, path: str, names: Sequence[str]) -> None:
    for name in names:
        double.service._delete({"path": f"{path}/{name}"})


@pytest.fixture(scope="module")
def double() -> Iterator[DoubleProcess[DropboxDouble]]:
    with DoubleProcess(DropboxDouble) as double:
        yield double


@pytest.fixture(scope="module")
def options(double: DoubleProcess[DropboxDouble]) -> dict[str, Any]:
    return {"endpoint": double.url, "part_size": PART, **double.tell(keys)._asdict()}


@pytest.fixture(scope="module")
def subject(double: DoubleProcess[DropboxDouble], options: dict[str, Any]) -> Iterator[Subject]:
    make = partial(open_place, "dropbox:Backups/conformance", **options)
    fill = in_double(double, fill_folder, empty_folder, "/Backups/conformance")
    with Subject(make, soak=SOAK, scale=0.3, fill=fill) as subject:
        yield subject


LONG = () if SOAK else ("listing.list_streams",)
"""It wants more entries than a few pages of a listing have."""


@pytest.mark.parametrize("check", [each for each in checks if each.name not in LONG], ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


@pytest.fixture
def place(
    double: DoubleProcess[DropboxDouble], options: dict[str, Any], request: pytest.FixtureRequest
) -> Iterator[Backend]:
    """A fresh place on a service that works."""
    place = open_place(f"dropbox:{request.node.name[:60]}", **options)
    place.create()
    with place:
        yield place
        double.fail()
        double.tell(change, revoked=False, busy=False, room=1 << 40)


class TestNames:
    @pytest.mark.parametrize(
        "name",
        ["a", "back\\slash", "dot.", "..x", " x ", "desktop.ini", "Å", MARK + "5C", "\x7f", "~$a"],
    )
    def test_come_back(self, name: str) -> None:
        encoded = dropbox_names.encode(name)
        assert dropbox_names.decode(encoded) == name
        assert encoded == encoded.rstrip(" .")

    def test_plain_ones_stay_as_they_are(self) -> None:
        for name in ("data", "0a1b", "photo (1).jpg", ".hidden", "日本語"):
            assert dropbox_names.encode(name) == name

    def test_of_others_are_taken_as_they_are(self) -> None:
        assert dropbox_names.decode(f"{MARK}FF{MARK}zz") == f"{MARK}FF{MARK}zz"

    def test_folders_that_differ_in_case_are_not_merged(
        self, place: Backend, options: dict[str, Any]
    ) -> None:
        place.store("Folder/item", b"one")
        with pytest.raises(NameCollision, match="'Folder'"):
            place.store("folder/other", b"two")
        with pytest.raises(NameCollision):
            place.mkdir("FOLDER")
        assert not place.info("folder").exists


class TestRequests:
    """What an operation costs: Dropbox counts requests."""

    def test_a_new_item_takes_one_once_its_folder_is_known(
        self, place: Backend, double: DoubleProcess[DropboxDouble]
    ) -> None:
        place.store("data/00/first", b"value")
        place.store("data/00/second", b"value")
        double.tell(requests)
        place.store("data/00/third", b"value")
        assert double.tell(requests) == ["upload"]
        place.load("data/00/third")
        assert double.tell(requests) == ["download"]
        place.store("data/00/large", bytes(PART + 1))
        assert double.tell(requests) == [
            "upload_session/start",
            "upload_session/append_v2",
            "upload_session/append_v2",
            "upload_session/finish",
        ]


class TestFaults:
    def test_a_fifth_of_the_requests_fails(
        self, place: Backend, double: DoubleProcess[DropboxDouble]
    ) -> None:
        double.fail(
            rate=0.2,
            seed=5,
            kinds=[Fault.UNAVAILABLE, Fault.TOO_MANY, Fault.RESET, Fault.LOST, Fault.CUT],
        )
        value = bytes(range(256)) * 40_000
        for number in range(10):
            place.store(f"items/{number}", value[: 1000 * number])
        place.store("items/large", value)
        place.move("items/1", "moved/1")
        place.delete("items/2")
        double.fail()
        assert sorted(entry.name for entry in place.list("items")) == [
            *(str(number) for number in (0, *range(3, 10))),
            "large",
        ]
        assert place.load("items/large") == value
        assert place.load("moved/1") == value[:1000]

    def test_reading_goes_on_in_the_value_that_it_began(
        self, place: Backend, double: DoubleProcess[DropboxDouble]
    ) -> None:
        value = bytes(range(256)) * 20_000
        place.store("item", value)
        double.fail(rate=1, kinds=[Fault.CUT], limit=3)
        with place.open_reader("item", offset=100) as reader:
            first = reader.read(1000)
            place.store("item", b"another")
            assert first + b"".join(iter(lambda: reader.read(1 << 20), b"")) == value[100:]

    def test_a_reply_that_was_lost_is_no_conflict(
        self, place: Backend, double: DoubleProcess[DropboxDouble]
    ) -> None:
        for name, value in (("small", b"value"), ("large", bytes(2 * PART + 5))):
            double.fail(rate=1, kinds=[Fault.LOST], limit=2)
            with place.open_writer(name, if_absent=True) as writer:
                writer.write(value)
            double.fail()
            assert place.load(name) == value
            with pytest.raises(ObjectExists), place.open_writer(name, if_absent=True) as writer:
                writer.write(b"other")

    def test_an_access_token_that_expired_is_renewed(
        self, place: Backend, double: DoubleProcess[DropboxDouble]
    ) -> None:
        place.store("item", b"value")
        double.tell(expire)
        assert place.load("item") == b"value"

    def test_a_grant_that_was_withdrawn_names_the_way_back(
        self, place: Backend, double: DoubleProcess[DropboxDouble], options: dict[str, Any]
    ) -> None:
        place.store("item", b"value")
        double.tell(change, revoked=True)
        with pytest.raises(PermissionDenied, match="backupgw store auth") as caught:
            place.load("item")
        assert not caught.value.retryable
        assert str(options["refresh_token"]) not in str(caught.value)
        with pytest.raises(PermissionDenied, match="backupgw store auth"):
            open_place("dropbox:elsewhere", **options).open()

    def test_a_full_account(self, place: Backend, double: DoubleProcess[DropboxDouble]) -> None:
        double.tell(change, room=1000)
        for size in (2000, PART + 1):
            with pytest.raises(StorageFull):
                place.store("item", bytes(size))
        assert not place.info("item").exists
        assert place.quota().limit == 1000

    def test_killed_and_started_again_in_the_middle(
        self, place: Backend, double: DoubleProcess[DropboxDouble]
    ) -> None:
        value = bytes(3 * PART)
        with place.open_writer("item", size=len(value)) as writer:
            writer.write(value[: 2 * PART + 1])
            double.kill()
            back = threading.Timer(1, double.start)
            back.start()
            writer.write(value[2 * PART + 1 :])
        back.join()
        assert place.hash("item") == place.hash("item", "sha256")
        assert place.info("item").size == len(value)

    def test_nobody_there_is_an_error_that_may_pass(self, options: dict[str, Any]) -> None:
        from backupgw.kvstore.backends.dropbox import Dropbox
        from backupgw.kvstore.backends.dropbox_client import Login

        login = Login(
            app_key="key", refresh_token="secret-grant", endpoint="http://127.0.0.1:9", timeout=5
        )
        place = Dropbox("/x", login, schedule=Schedule(attempts=2, first=0.01))
        with pytest.raises(BackendConnectionError) as caught:
            place.open()
        assert caught.value.retryable
        assert "secret-grant" not in f"{caught.value} {place!r} {login!r}"


class TestFolders:
    def test_a_folder_that_fills_meanwhile_is_not_lost(
        self, place: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Dropbox removes a folder with all that is in it."""
        from backupgw.kvstore.backends.dropbox import Dropbox

        place.mkdir("folder")
        look = Dropbox._require_empty
        looked = 0

        def look_and_fill(self: Dropbox, name: str, path: str) -> None:
            nonlocal looked
            looked += 1
            look(self, name, path)
            if looked == 1:
                place.store("folder/item", b"precious")

        monkeypatch.setattr(Dropbox, "_require_empty", look_and_fill)
        with pytest.raises(BackendError, match="not empty"):
            place.rmdir("folder")
        assert place.load("folder/item") == b"precious"

    def test_an_item_that_became_a_folder_is_not_deleted_as_one(self, place: Backend) -> None:
        place.store("name/item", b"precious")
        with pytest.raises(ObjectNotFound):
            place.delete("name")
        assert place.load("name/item") == b"precious"


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "options", "message"),
        [
            ("dropbox://host/x", {"refresh_token": "r", "app_key": "k"}, "dropbox:FOLDER"),
            ("dropbox:a/../b", {"refresh_token": "r", "app_key": "k"}, "segment"),
            ("dropbox:a", {}, "backupgw store auth"),
            ("dropbox:a", {"refresh_token": "r"}, "app_key"),
            ("dropbox:a", {"refresh_token": "r", "app_key": "k", "part_size": 5}, "4 MiB"),
        ],
    )
    def test_mistakes_are_named(self, url: str, options: dict[str, Any], message: str) -> None:
        with pytest.raises(BackendURLInvalid, match=message):
            open_place(url, **options)

    def test_a_place_that_is_not_there(self, options: dict[str, Any]) -> None:
        with pytest.raises(BackendDoesNotExist, match="no folder /nowhere"):
            open_place("dropbox:nowhere", **options).open()
