"""Google Drive as a place, through its real library, on a double of its API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore import many_large_writes
from tests.kvstore.signed_in.drive_files import add_drive
from tests.kvstore.signed_in.kinds import CHECKS, GDRIVE, Kind
from tests.kvstore.signed_in.told_doubles import account, change, requests
from tests.servers.double_process import DoubleProcess
from tests.servers.drive_double import DriveDouble

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError, BackendURLInvalid
from backupgw.kvstore.conformance import Check, Status, Subject

PART = GDRIVE.part


@pytest.fixture(scope="module")
def kind() -> Kind:
    return GDRIVE


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note


def test_memory_of_many_large_writes(
    place: Backend, options: dict[str, Any], tmp_path: Path, url: str
) -> None:
    usual = {name: value for name, value in options.items() if name != "part_size"}
    peak = many_large_writes.peak(url, usual, tmp_path)
    assert peak < many_large_writes.CEILING


class TestRequests:
    """What an operation costs: Google counts requests."""

    def test_a_new_item_takes_two_once_its_folder_is_known(
        self, place: Backend, double: DoubleProcess[DriveDouble], options: dict[str, Any], url: str
    ) -> None:
        place.store("data/00/first", b"value")
        double.tell(requests)
        with place.open_writer("data/00/second", if_absent=True) as writer:
            writer.write(b"value")
        assert double.tell(requests) == ["POST upload", "GET drive"]
        place.load("data/00/second")
        assert double.tell(requests) == ["GET drive"]
        with place.open_writer("data/00/large", if_absent=True) as writer:
            writer.write(bytes(2 * PART + 1))
        assert double.tell(requests) == [
            "POST upload",
            "PUT upload",
            "PUT upload",
            "GET drive",
            "PUT upload",
            "GET drive",
        ]
        place.delete("data/00/second")
        assert double.tell(requests) == ["GET drive", "DELETE drive"]
        told: list[str] = []
        with open_place(url, on_call=told.append, **options) as counted:
            counted.load("data/00/large")
        assert told[-2:] == ["files.list", "files.get"]

    def test_many_folders_take_one_each(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        double.tell(requests)
        place.mkdirs(f"{number:02x}" for number in range(64))
        assert len(double.tell(requests)) <= 64 + 4
        assert len([*place.list("")]) == 64

    def test_a_repositorys_folders_are_listed_many_by_one(
        self,
        place: Backend,
        double: DoubleProcess[DriveDouble],
        options: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
        url: str,
    ) -> None:
        # On a busy machine, what was fetched would be too old before it is asked for.
        monkeypatch.setattr("backupgw.kvstore.backends.listing_ahead._VALID", 1000.0)
        folders = [f"data/{number:02x}" for number in range(120)]
        place.mkdirs(folders)
        with ThreadPoolExecutor(8) as pool:
            [*pool.map(lambda folder: place.store(f"{folder}/blob", b"value"), folders)]
        with open_place(url, **options) as fresh:
            double.tell(requests)
            found = {
                f"data/{folder.name}": [item.name for item in fresh.list(f"data/{folder.name}")]
                for folder in fresh.list("data")
            }
            asked = double.tell(requests)
        assert len(asked) <= 10, " ".join(asked)
        assert found == {folder: ["blob"] for folder in folders}

    def test_what_changes_meanwhile_is_listed(
        self, place: Backend, options: dict[str, Any], url: str
    ) -> None:
        place.mkdirs(f"data/{number:02x}" for number in range(40))
        place.store("data/25/old", b"value")
        names = sorted(folder.name for folder in place.list("data"))
        with open_place(url, **options) as other:
            other.rmdir("data/27")  # as others do: nothing that is asked together fails of it
        for name in names[:5]:
            assert [*place.list(f"data/{name}")] == []
        place.delete("data/25/old")
        place.store("data/26/new", b"value")
        assert [*place.list("data/24")] == []
        assert [*place.list("data/25")] == []
        assert [item.name for item in place.list("data/26")] == ["new"]
        assert [*place.list("data/20")] == []

    def test_limits_of_requests_are_waited_out(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        double.tell(change, limited=3)
        place.store("item", b"value")
        double.tell(change, limited=1)
        assert place.load("item") == b"value"

    def test_short_pages_are_read_to_the_end(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        names = [f"item{number:02}" for number in range(23)]
        for name in names:
            place.store(f"folder/{name}", b"")
        double.tell(change, most=5)
        assert sorted(item.name for item in place.list("folder")) == names
        double.tell(change, most=1000)


class TestSharedDrives:
    def test_a_service_account_in_a_shared_drive(
        self, double: DoubleProcess[DriveDouble], options: dict[str, Any]
    ) -> None:
        double.tell(add_drive, "0AnDriveOfAll")
        key = double.tell(account, double.url)
        of_all = {"endpoint": options["endpoint"], "service_account": key, "shared_drive": True}
        place = open_place("gdrive://0AnDriveOfAll/Backups", **of_all)
        place.create()
        with place:
            place.store("folder/item", b"value")
            assert place.load("folder/item") == b"value"
            assert place.quota().limit == -1
        place.destroy()
        with pytest.raises(BackendDoesNotExist, match="no such folder"):
            place.open()

    def test_one_that_is_not_there(self, options: dict[str, Any]) -> None:
        with pytest.raises(BackendDoesNotExist, match="does not see"):
            open_place("gdrive://0NoSuchDrive/x", shared_drive=True, **options).open()


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "changed", "message"),
        [
            ("gdrive:a/../b", {}, "segment"),
            ("gdrive:/a", {}, "gdrive:FOLDER"),
            ("gdrive:a", {"refresh_token": None}, "backupgw store auth"),
            ("gdrive:a", {"service_account": "{}"}, "backupgw store auth"),
            ("gdrive:a", {"client_secret": None}, "client_secret"),
            ("gdrive:a", {"subject": "x@y"}, "subject"),
            ("gdrive:a", {"scope": "all"}, "scope"),
            ("gdrive:a", {"part_size": 5}, "part_size"),
            ("gdrive:a", {"shared_drive": True}, "gdrive://ID"),
        ],
    )
    def test_mistakes_are_named(
        self, url: str, changed: dict[str, Any], message: str, options: dict[str, Any]
    ) -> None:
        with pytest.raises(BackendURLInvalid, match=message):
            open_place(url, **{**options, **changed})

    def test_a_folder_that_is_not_there(self, options: dict[str, Any]) -> None:
        with pytest.raises(BackendDoesNotExist, match="gdrive:nowhere"):
            open_place("gdrive:nowhere", **options).open()

    def test_a_whole_drive_is_not_destroyed(self, options: dict[str, Any]) -> None:
        with pytest.raises(BackendError, match="whole drive"):
            open_place("gdrive:", **options).destroy()


def test_folders_are_folders(place: Backend) -> None:
    place.mkdir("name")
    place.store("item", b"value")
    for name in ("name", "item/below"):
        with pytest.raises(BackendError, match="folder"):
            place.store(name, b"x")
    assert place.info("name").directory
    assert place.load("item") == b"value"
