"""Names in Google Drive, which lets many files have one, and what becomes of those removed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.kvstore.signed_in.drive_files import named, put
from tests.kvstore.signed_in.kinds import GDRIVE, Kind
from tests.kvstore.signed_in.told_doubles import change
from tests.servers.double_process import DoubleProcess
from tests.servers.drive_double import DriveDouble

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ObjectExists, ObjectNotFound, PermissionDenied

PART = GDRIVE.part


@pytest.fixture(scope="module")
def kind() -> Kind:
    return GDRIVE


class TestNames:
    """Drive knows no unique names; we do."""

    def test_of_two_files_of_a_name_the_older_counts_for_everybody(
        self,
        place: Backend,
        double: DoubleProcess[DriveDouble],
        options: dict[str, Any],
        folder: str,
        url: str,
    ) -> None:
        place.store("item", b"older")
        double.tell(put, folder, "item", b"younger")
        with open_place(url, **options) as other:
            for each in (place, other):
                assert each.load("item") == b"older"
                assert [(e.name, e.size) for e in each.list("")] == [("item", 5)]
            other.store("item", b"the newest")
            assert place.load("item") == b"the newest"
            place.delete("item")
            assert not other.info("item").exists, "the younger one does not come to light"

    def test_gateways_that_do_not_see_each_other_agree_afterwards(
        self,
        place: Backend,
        double: DoubleProcess[DriveDouble],
        options: dict[str, Any],
        folder: str,
        url: str,
    ) -> None:
        with open_place(url, **options) as other:
            double.tell(change, lag=3600.0)
            for number, each in enumerate((place, other)):
                with each.open_writer("folder/item", if_absent=True) as writer:
                    writer.write(b"from %d" % number)
                each.store(f"folder/own-{number}", b"value")
            double.tell(change, lag=0.0)
        assert len(double.tell(named, folder, "folder")) == 2
        names = ["item", "own-0", "own-1"]
        for _ in range(2):
            with open_place(url, **options) as fresh:
                assert sorted(entry.name for entry in fresh.list("folder")) == names
                assert fresh.load("folder/item") == b"from 0"
                assert fresh.load("folder/own-1") == b"value"

    def test_threads_and_gateways_make_one_folder(
        self,
        place: Backend,
        double: DoubleProcess[DriveDouble],
        options: dict[str, Any],
        folder: str,
    ) -> None:
        def work(number: int) -> None:
            place.store(f"shared/deep/{number}", b"value")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(double.tell(named, folder, "deep")) == 1
        assert len([*place.list("shared/deep")]) == 8

    @pytest.mark.parametrize("large", [False, True])
    def test_who_comes_second_takes_its_own_back(
        self, place: Backend, double: DoubleProcess[DriveDouble], large: bool, folder: str
    ) -> None:
        value = bytes(2 * PART + 1) if large else b"second"
        writer = place.open_writer("item", if_absent=True)
        writer.write(value)
        place.store("item", b"first")
        with pytest.raises(ObjectExists):
            writer.commit()
        assert double.tell(named, folder, "item") == [b"first"]
        place.delete("item")
        writer.commit()
        assert place.load("item") == value

    def test_names_that_differ_in_case_are_two(self, place: Backend) -> None:
        place.store("Name", b"upper")
        with place.open_writer("name", if_absent=True) as writer:
            writer.write(b"lower")
        assert (place.load("Name"), place.load("name")) == (b"upper", b"lower")

    def test_what_strangers_put_there_is_no_item(
        self, place: Backend, double: DoubleProcess[DriveDouble], folder: str
    ) -> None:
        place.store("item", b"value")
        double.tell(put, folder, "with/slash", b"x")
        assert [entry.name for entry in place.list("")] == ["item"]


class TestRemoving:
    def test_for_ever_or_into_the_trash(
        self,
        place: Backend,
        double: DoubleProcess[DriveDouble],
        options: dict[str, Any],
        folder: str,
        url: str,
    ) -> None:
        place.store("gone", b"value")
        place.delete("gone")
        assert double.tell(named, folder, "gone") == []
        with open_place(url, trash=True, **options) as careful:
            careful.store("kept", b"value")
            careful.delete("kept")
            assert double.tell(named, folder, "kept") == [None]
            assert not careful.info("kept").exists
            with pytest.raises(ObjectNotFound):
                careful.load("kept")

    def test_an_account_that_may_not_delete_for_ever(
        self, place: Backend, double: DoubleProcess[DriveDouble]
    ) -> None:
        place.store("item", b"value")
        double.tell(change, may_delete=False)
        with pytest.raises(PermissionDenied, match="permissions"):
            place.delete("item")

    def test_a_folder_that_another_gateway_removed_is_made_again(
        self, place: Backend, options: dict[str, Any], url: str
    ) -> None:
        place.store("folder/first", b"value")
        with open_place(url, **options) as other:
            other.delete("folder/first")
            other.rmdir("folder")
            place.store("folder/second", b"value")
            with place.open_writer("folder/large") as writer:
                writer.write(bytes(2 * PART + 1))
            assert sorted(e.name for e in other.list("folder")) == ["large", "second"]
