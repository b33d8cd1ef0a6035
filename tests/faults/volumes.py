"""Small file systems to fill up: mounted for the length of a block, as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PAGE = 4096


@contextmanager
def tmpfs(work: Path, *, megabytes: int, inodes: int) -> Iterator[Path]:
    """A tmpfs of a size and a number of inodes, one of which is its root."""
    folder = work / "tmpfs"
    folder.mkdir()
    options = f"size={megabytes}m,nr_inodes={inodes},mode=0700"
    with _mounted(folder, "-t", "tmpfs", "-o", options, "tmpfs"):
        yield folder


@contextmanager
def ext4(work: Path, *, megabytes: int) -> Iterator[Path]:
    """An ext4 in a file, without the blocks that root may use when others may not."""
    image = _image(work / "ext4.img", megabytes)
    _run("mkfs.ext4", "-F", "-q", "-m", "0", str(image))
    folder = work / "ext4"
    folder.mkdir()
    with _mounted(folder, "-o", "loop", str(image)):
        yield folder


@contextmanager
def sharing(work: Path, kind: str) -> Iterator[Path]:
    """A file system whose files can share blocks: btrfs, or xfs, each of half a gigabyte."""
    image = _image(work / f"{kind}.img", 512)
    _run(f"mkfs.{kind}", "-q", str(image))
    folder = work / kind
    folder.mkdir()
    with _mounted(folder, "-o", "loop", str(image)):
        yield folder


@contextmanager
def btrfs_with_quota(work: Path, *, megabytes: int) -> Iterator[Path]:
    """A btrfs subvolume whose quota, not whose size, is the limit: writes fail with EDQUOT."""
    image = _image(work / "btrfs.img", 512)
    _run("mkfs.btrfs", "-q", str(image))
    folder = work / "btrfs"
    folder.mkdir()
    with _mounted(folder, "-o", "loop", str(image)):
        _run("btrfs", "quota", "enable", str(folder))
        limited = folder / "limited"
        _run("btrfs", "subvolume", "create", str(limited))
        _run("btrfs", "qgroup", "limit", f"{megabytes}M", str(limited))
        yield limited


def held(folder: Path) -> int:
    """Return how many bytes a file system has no room for any more, all that is written synced."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.sync()
        found = os.fstatvfs(fd)
    finally:
        os.close(fd)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def fill_bytes(folder: Path, *, leave: int = 0) -> Path:
    """Fill a file system but for about `leave` bytes; return the ballast file."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(1 << 20)):
                pass
        with suppress(OSError):
            while file.write(bytes(PAGE)):
                pass
        with suppress(OSError):
            os.fsync(file.fileno())
        if leave:
            file.truncate(max(0, file.tell() - leave))
            os.fsync(file.fileno())
    return ballast


def fill_inodes(folder: Path, *, leave: int = 0) -> Path:
    """Use up all inodes but `leave`; return the folder that holds them."""
    ballast = folder / "inodes"
    ballast.mkdir()
    for number in range(os.statvfs(folder).f_ffree - leave):
        (ballast / str(number)).touch()
    return ballast


@contextmanager
def _mounted(folder: Path, *arguments: str) -> Iterator[None]:
    _run("mount", *arguments, str(folder))
    try:
        yield
    finally:
        # A session of a server may end just now; it keeps the rest no longer than it lives.
        _run("umount", "--lazy", str(folder))


def _image(file: Path, megabytes: int) -> Path:
    with file.open("wb") as opened:
        opened.truncate(megabytes << 20)
    return file


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
