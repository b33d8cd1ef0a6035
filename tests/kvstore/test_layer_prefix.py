"""A folder as a place: nothing outside of it can be named, told or removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    ObjectNotFound,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.conformance.naming_checks import HOSTILE
from backupgw.kvstore.layers.prefix import PrefixLayer
from backupgw.kvstore.layers.stack import LayerInvalid
from backupgw.kvstore.names import InvalidName, KernelPath
from backupgw.kvstore.registry import open_place


@pytest.fixture
def disk(tmp_path: Path) -> PosixFS:
    place = PosixFS(str(tmp_path / "place"), durability="fast")
    place.create()
    with place:
        place.store("bob/secret", b"bob's")
        place.store("alice/mine", b"alice's")
    return place


def alice(disk: Backend) -> PrefixLayer:
    return PrefixLayer(disk, "alice")


def test_items_lie_in_the_folder_and_are_told_without_it(disk: PosixFS) -> None:
    with alice(disk) as place:
        place.store("a/b", b"value")
        assert disk.load("alice/a/b") == b"value"
        assert place.info("a/b").name == "a/b"
        assert place.info("").directory
        assert sorted(info.name for info in place.list("")) == ["a", "mine"]
        place.move("a/b", "c")
        place.copy("c", "d")
        place.defrag([("c", 0, 2), ("d", 2, 3)], "e")
        assert disk.load("alice/e") == place.gather([("e", 0, 5)]) == b"value"
        assert place.hash("e") == disk.hash("alice/e")


@pytest.mark.parametrize("name", [*HOSTILE, "../bob/secret", "a/../../bob/secret", "/bob/secret"])
def test_no_name_leads_out(disk: PosixFS, name: str) -> None:
    with alice(disk) as place:
        for call in (place.load, place.info, place.delete, place.mkdir, place.sync, place.rmdir):
            with pytest.raises(InvalidName):
                call(name)
        for one, two in ((name, "x"), ("mine", name)):
            with pytest.raises(InvalidName):
                place.move(one, two)
            with pytest.raises(InvalidName):
                place.move_if_absent(one, two)
            with pytest.raises(InvalidName):
                place.copy(one, two)
        with pytest.raises(InvalidName):
            next(place.list(name))
        assert disk.load("bob/secret") == b"bob's"


def test_a_checkpoint_of_another_folder_is_no_way_in(disk: PosixFS) -> None:
    with alice(disk) as place:
        token = PrefixLayer(disk, "bob").open_writer("new").checkpoint()
        for call in (place.resume_writer, place.abort_writer):
            with pytest.raises(ValueError, match="not a token"):
                call(token)
        inner = disk.open_writer("bob/other").checkpoint()
        with pytest.raises(ValueError, match="not a token"):
            place.resume_writer(inner)
        own = place.open_writer("mine too").checkpoint()
        place.resume_writer(own).commit()
        assert disk.info("alice/mine too").exists


def test_destroy_removes_the_folder_alone(disk: PosixFS) -> None:
    with alice(disk) as place:
        place.store("deep/er/item", b"value")
        place.mkdir("empty")
    place.destroy()
    with disk:
        assert [info.name for info in disk.list("")] == ["bob"]
        assert disk.load("bob/secret") == b"bob's"
    with pytest.raises(BackendDoesNotExist, match="alice"):
        place.open()
    with disk:
        assert disk.load("bob/secret") == b"bob's", "a refused open leaves the place closed"


def test_writes_that_have_not_ended_are_told_by_destroy(disk: PosixFS) -> None:
    with alice(disk) as place:
        token = place.open_writer("unfinished").checkpoint()
    with pytest.raises(BackendError, match="alice: nothing is left in it but writes"):
        alice(disk).destroy()
    with disk:
        disk.mkdir("alice")
    with alice(disk) as place:
        place.abort_writer(token)
    place.destroy()


def test_create_makes_place_and_folder_and_spares_what_is_there(disk: PosixFS) -> None:
    with pytest.raises(BackendAlreadyExists):
        alice(disk).create()
    PrefixLayer(disk, "carol/2026").create()
    with disk:
        assert disk.info("carol/2026").directory
    fresh = Memory()
    PrefixLayer(fresh, "a/b").create()
    with fresh:
        assert fresh.info("a/b").directory


def test_damaged_items_are_set_aside_out_of_reach(disk: PosixFS) -> None:
    with alice(disk) as place:
        kept = place.quarantine("mine")
        with pytest.raises(ObjectNotFound):
            place.load("mine")
        with pytest.raises(InvalidName):
            place.load(kept)


def test_what_the_kernel_keeps_goes_into_the_folder_too(disk: PosixFS) -> None:
    """A layer further out, such as a trash, keeps its names beneath the folder."""
    kept = KernelPath(".backupgw-kept/one")
    with alice(disk) as place:
        place.move("mine", kept)
        assert place.load(kept) == b"alice's"
        assert disk.load(KernelPath(f"alice/{kept}")) == b"alice's"
        assert [info.name for info in place.list("")] == []


@pytest.mark.parametrize("folder", ["", "/alice", "alice/", "a//b", "../alice", ".backupgw-x", 7])
def test_a_folder_that_is_none_is_refused_by_name(folder: object) -> None:
    with pytest.raises(LayerInvalid, match="layer prefix: folder: "):
        open_place("memory:", layers=[{"layer": "prefix", "folder": folder}])
