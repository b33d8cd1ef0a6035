"""Copies on a disk: shared where the file system can, right everywhere."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.volumes import held, sharing

from backupgw.kvstore.backends import posixfs_copying
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.kvstore.backends.posixfs import PosixFS

MIB = 1 << 20
LARGE = os.urandom(MIB) * 32 + b"and a bit"


@contextmanager
def place(folder: Path) -> Iterator[PosixFS]:
    backend = PosixFS(str(folder / "place"))
    backend.create()
    backend.open()
    try:
        yield backend
    finally:
        backend.close()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("btrfs", marks=pytest.mark.root("mkfs.btrfs")),
        pytest.param("xfs", marks=pytest.mark.root("mkfs.xfs")),
    ],
)
def test_blocks_are_shared(tmp_path: Path, kind: str) -> None:
    with sharing(tmp_path, kind) as volume, place(volume) as backend:
        assert backend.capabilities.copy
        backend.store("large", LARGE)
        backend.store("empty", b"")
        before = held(volume)
        for number in range(4):
            backend.copy("large", f"copies/{number}")
        backend.copy("empty", "copies/empty")
        backend.copy("copies/0", "copies/0")
        assert held(volume) - before < 4 * MIB, "copies take room"
        assert [backend.load(f"copies/{number}") for number in range(4)] == [LARGE] * 4
        assert backend.load("copies/empty") == b""
        # What is written into one of them, by whoever has the folder mounted, is its own.
        with (volume / "place/large").open("r+b") as file:
            file.write(b"changed in place")
        assert backend.load("copies/1") == LARGE
        with pytest.raises(ObjectNotFound):
            backend.copy("none", "copies/none")
        with pytest.raises(BackendError):
            backend.copy("large", "copies")
        assert sorted(info.name for info in backend.list("copies")) == ["0", "1", "2", "3", "empty"]


def test_elsewhere_the_kernel_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on ext4: nobody is promised that it costs nothing, and what is copied is right."""
    monkeypatch.setattr(fcntl, "ioctl", _refuse)
    monkeypatch.setattr(posixfs_copying, "_AT_ONCE", 5 * MIB + 1)
    with place(tmp_path) as backend:
        assert not backend.capabilities.copy
        backend.store("large", LARGE)
        backend.copy("large", "copy")
        assert backend.load("copy") == LARGE


@pytest.mark.parametrize("copies", [0, 3 * MIB])
def test_where_the_kernel_stops_copying_it_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    """It may refuse at once (another file system), or say that there is nothing more."""
    real = os.copy_file_range
    given: list[int] = []

    def some(source: int, target: int, count: int, offset_src: int) -> int:
        if not copies:
            raise OSError(errno.EXDEV, "two file systems")
        if given:
            return 0
        given.append(copies)
        return real(source, target, copies, offset_src=offset_src)

    monkeypatch.setattr(fcntl, "ioctl", _refuse)
    monkeypatch.setattr(os, "copy_file_range", some)
    with place(tmp_path) as backend:
        backend.store("large", LARGE)
        backend.copy("large", "copy")
        assert backend.load("copy") == LARGE


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(fcntl, "ioctl", _refuse)
    with place(tmp_path) as backend:
        backend.store("item", b"1")
        backend.store("old", b"2")
        monkeypatch.setattr(os, "copy_file_range", full)
        for target in ("copy", "old"):
            with pytest.raises(BackendError):
                backend.copy("item", target)
        assert backend.load("old") == b"2"
        assert sorted(os.listdir(tmp_path / "place")) == ["item", "old"]


def _refuse(*_: object) -> int:
    raise OSError(errno.EOPNOTSUPP, "no blocks are shared here")
