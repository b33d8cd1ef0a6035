"""A trash on file systems that lack something, and what it syncs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kvstore.test_layer_trash import MONTH, kept

from backupgw.kvstore.backends import beneath, posixfs_naming, posixfs_writer
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.trash import TrashLayer
from backupgw.kvstore.layers.trash_contents import Trash


@pytest.fixture
def place(tmp_path: Path) -> Iterator[TrashLayer]:
    place = TrashLayer(PosixFS(str(tmp_path / "store")), MONTH)
    place.create()
    with place:
        yield place


def all_ways_keep(place: TrashLayer) -> None:
    place.store("a/item", b"one")
    place.store("a/item", b"two")
    place.store("b/other", b"three")
    place.move("b/other", "a/item")
    place.delete("a/item")
    values = [b"one", b"two", b"three"]
    assert kept(place) == list(zip(["a/item"] * 3, "rrd", values, strict=True))
    assert list(place.list("a")) == []
    assert list(place.list("b")) == []
    Trash(place).restore_name("a/item")
    assert place.load("a/item") == b"three"


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "not here")


@pytest.mark.parametrize("noreplace", [True, False], ids=["renameat2", "nothing"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_a_file_system_that_exchanges_no_names(
    place: TrashLayer, monkeypatch: pytest.MonkeyPatch, *, noreplace: bool, links: bool
) -> None:
    monkeypatch.setattr(posixfs_writer, "exchange", refuse)
    if not noreplace:
        monkeypatch.setattr(posixfs_naming, "rename_noreplace", refuse)
    if not links:
        monkeypatch.setattr(posixfs_writer, "_OPEN_FILES", "/missing/proc/self/fd")
        monkeypatch.setattr(os, "link", refuse)
    all_ways_keep(place)


def test_an_item_on_another_file_system_is_copied_into_the_trash(
    place: TrashLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a link that the operator listed."""
    plain = os.rename

    def only_within(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        folders = [os.readlink(f"/proc/self/fd/{fd}") for fd in (src_dir_fd, dst_dir_fd)]
        if len({".backupgw-trash" in folder for folder in folders}) == 2:
            raise OSError(errno.EXDEV, "another file system")
        plain(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", only_within)
    place.store("item", b"one")
    place.store("item", b"two")
    place.delete("item")
    assert kept(place) == [("item", "r", b"one"), ("item", "d", b"two")]


def test_what_is_replaced_is_durable_before_its_name_is_given_away(
    place: TrashLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new bytes and their name in the trash's folder are synced, then the two change names,
    then both folders are synced: a power loss finds one of the two values at each name."""
    place.store("folder/item", b"one")
    place.store("folder/item", b"two")  # the folders of the trash are there now
    steps: list[str] = []
    fsync, exchange = os.fsync, beneath.exchange

    def watched_fsync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        kind = "folder" if os.path.isdir(path) else "value"
        steps.append("trash" if kind == "folder" and ".backupgw-trash" in path else kind)
        fsync(fd)

    def watched_exchange(folder: int, name: str, other: int, other_name: str) -> None:
        steps.append("exchange")
        exchange(folder, name, other, other_name)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(posixfs_writer, "exchange", watched_exchange)
    place.store("folder/item", b"three")
    before, after = steps[: steps.index("exchange")], steps[steps.index("exchange") + 1 :]
    assert {"value", "trash"} <= set(before)
    assert before.index("value") < before.index("trash")
    assert sorted(after) == ["folder", "trash"]
    steps.clear()
    place.delete("folder/item")
    assert sorted(set(steps)) == ["folder", "trash"]
