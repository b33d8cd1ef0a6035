"""Dropbox as a place, through its real library, on a double of its API."""

from __future__ import annotations

from typing import Any

import pytest
from tests.kvstore.signed_in.kinds import CHECKS, DROPBOX, Kind
from tests.servers.double import Fault
from tests.servers.double_process import DoubleProcess
from tests.servers.dropbox_double import DropboxDouble

from backupgw.kvstore import open_place
from backupgw.kvstore.backends import dropbox_names
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.dropbox_client import Login
from backupgw.kvstore.backends.dropbox_names import MARK
from backupgw.kvstore.backends.errors import (
    BackendDoesNotExist,
    BackendError,
    BackendURLInvalid,
    NameCollision,
    ObjectNotFound,
)
from backupgw.kvstore.conformance import Check, Status, Subject

PART = DROPBOX.part


def requests(double: DropboxDouble) -> list[str]:
    found = [call.path.removeprefix("/2/files/") for call in double.calls]
    double.calls.clear()
    return found


@pytest.fixture(scope="module")
def kind() -> Kind:
    return DROPBOX


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


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


def test_reading_goes_on_in_the_value_that_it_began(
    place: Backend, double: DoubleProcess[DropboxDouble]
) -> None:
    value = bytes(range(256)) * 20_000
    place.store("item", value)
    double.fail(rate=1, kinds=[Fault.CUT], limit=3)
    with place.open_reader("item", offset=100) as reader:
        first = reader.read(1000)
        place.store("item", b"another")
        assert first + b"".join(iter(lambda: reader.read(1 << 20), b"")) == value[100:]


def test_what_it_signs_in_with_is_not_shown() -> None:
    login = Login("key", app_secret="hidden 1", refresh_token="hidden 2", access_token="hidden 3")
    assert "hidden" not in repr(login)


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
