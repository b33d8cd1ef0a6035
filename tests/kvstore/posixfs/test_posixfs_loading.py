"""Items of a local folder are read by files that stay open, whole, and many at a time."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore.backends import (
    posixfs_cached,
    posixfs_kept,
    posixfs_reader,
)
from backupgw.kvstore.backends.errors import (
    BackendError,
    ObjectNotFound,
)
from backupgw.kvstore.backends.posixfs import PosixFS


def local(place: PosixFS, root: Path) -> None:
    """Skip nothing: a file system without reads that do not wait has another way."""
    place.store("probe", b"probe")
    if place.load_nowait("probe") is None:
        assert subprocess.run(
            ["stat", "-f", "-c", "%T", str(root)], capture_output=True, text=True, check=True
        ).stdout.strip() in ("tmpfs", "overlayfs", "zfs")


def test_a_file_kept_open_is_what_its_name_leads_to(place: PosixFS, root: Path) -> None:
    local(place, root)

    def now() -> bytes | None:
        found = place.load_nowait("a/b", offset=1, size=5)
        assert found is None or found.item_size == (root / "a/b").stat().st_size
        return None if found is None else bytes(found.data)

    place.store("a/b", b"-first-")
    assert now() in (b"first", None)
    place.store("a/b", b"-again")
    assert now() in (b"again", None)
    (root / "a/b").write_bytes(b"-inplace")
    assert now() in (b"inpla", None)
    os.truncate(root / "a/b", 3)
    assert now() in (b"in", None)
    os.replace(root / "a/b", root / "a/c")
    assert now() is None
    assert place.info("a/b").exists is False
    os.symlink("c", root / "a/b")
    assert now() in (b"in", None), "the same file, by whatever way"
    os.unlink(root / "a/b")
    (root / "a" / "d").write_bytes(b"another")
    os.symlink("d", root / "a/b")
    assert now() is None, "no link is followed to a file that was not found without one"
    place.delete("a/c")
    os.unlink(root / "a/b")
    assert now() is None


def test_files_are_kept_open_for_seconds_and_not_without_bound(place: PosixFS, root: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for number in range(2 * posixfs_kept.MOST):
        place.store(f"item{number}", b"12345")
        place.load_nowait(f"item{number}")
    assert len(set(os.listdir("/proc/self/fd")) - before) <= posixfs_kept.MOST + 1
    for number in range(2 * posixfs_kept.MOST):
        place.delete(f"item{number}")
    end = time.monotonic() + 4 * posixfs_kept.SECONDS
    while any(map(deleted, before ^ set(os.listdir("/proc/self/fd")))):
        assert time.monotonic() < end, "a deleted file takes its room still"
        time.sleep(0.1)


def deleted(fd: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").endswith(" (deleted)")
    except OSError:
        return False


def test_files_kept_open_are_read_by_many_threads(place: PosixFS, root: Path) -> None:
    for number in range(8):
        place.store(f"item{number}", bytes([number]) * 1000)

    def read(seed: int) -> int:
        choose = random.Random(seed)
        found = 0
        for _ in range(1000):
            number = choose.randrange(9)
            loaded = place.load_nowait(f"item{number}", offset=-500)
            if loaded is not None:
                assert loaded.data == bytes([number]) * 500
                assert loaded.item_size == 1000
                found += 1
        return found

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    place.close()
    try:
        assert not [fd for fd in os.listdir("/proc/self/fd") if f"{root}/item" in opened(fd)]
    finally:
        place.open()


def opened(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_a_value_that_the_system_hands_out_in_pieces_is_loaded_whole(
    place: PosixFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux reads 2 GiB at most at a time."""
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 30_000), at))
    value = os.urandom(posixfs_cached.LARGEST + 10)
    place.store("item", value)
    assert place.load("item") == value
    assert place.load("item", offset=-60_008, size=60_007) == value[-60_008:-1]


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "the ordinary way"])
def test_threads_that_load_small_items_get_their_own(
    place: PosixFS, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:  # a C library that cannot
        monkeypatch.setattr(posixfs_cached, "_statx", None)
    largest = posixfs_cached.LARGEST
    values = [os.urandom(size) for size in (0, 1, 700, largest - 1, largest, largest + 1)]
    for number, value in enumerate(values):
        place.store(f"item{number}", value)

    def load_all(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(300):
            number = chance.randrange(len(values))
            value = values[number]
            size = chance.choice([None, 0, 1, 100, largest + 5])
            offset = chance.choice([0, 1, 650, largest, -1, -500, -largest - 5])
            start = max(len(value) + offset, 0) if offset < 0 else offset
            expected = value[start:] if size is None else value[start : start + size]
            assert place.load(f"item{number}", offset=offset, size=size) == expected

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(load_all, range(8)))


def test_threads_take_turns_at_small_items_and_wait_for_large_ones_together(
    place: PosixFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_a_time, most, lock = {"small": 0, "large": 0}, {"small": 0, "large": 0}, threading.Lock()

    def counted(kind: str, load: Callable[..., Any]) -> Callable[..., Any]:
        def slower(*how: Any) -> Any:
            with lock:
                at_a_time[kind] += 1
                most[kind] = max(most[kind], at_a_time[kind])
            time.sleep(0.01)
            try:
                return load(*how)
            finally:
                with lock:
                    at_a_time[kind] -= 1

        return slower

    monkeypatch.setattr(posixfs_cached, "load", counted("small", posixfs_cached.load))
    monkeypatch.setattr(posixfs_reader, "load", counted("large", posixfs_reader.load))
    place.store("small", b"small")
    place.store("large", bytes(posixfs_cached.LARGEST + 1))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(place.load, ["small"] * 8))
        assert most == {"small": 1, "large": 0}
        list(threads.map(place.load, ["large"] * 8))
    assert most["small"] == 1
    assert most["large"] > 1


def test_a_turn_that_was_lost_holds_nobody_up(
    place: PosixFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a signal whose handler raises at the wrong moment."""
    monkeypatch.setattr(posixfs_cached, "PATIENCE", 0.01)
    place.store("item", b"value")
    posixfs_cached.take_turn()
    assert place.load("item") == b"value"
    with pytest.raises(ObjectNotFound):
        place.load("missing")
    posixfs_cached.take_turn(False)  # it is there again
    posixfs_cached.end_turn(None)


def test_a_file_cut_short_while_it_is_loaded_is_no_value(
    place: PosixFS, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.store("item", bytes(posixfs_cached.LARGEST + 1))
    pread = os.pread

    def cut(fd: int, size: int, at: int) -> bytes:
        os.truncate(root / "item", 4)
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", cut)
    with pytest.raises(BackendError, match="cut short"):
        place.load("item")
