"""Small values that an event loop writes itself: only while that holds nobody up."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from backupgw.kvstore.backends import posixfs
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.backends.posixfs_at_once import (
    FEWEST,
    LARGEST,
    MOST,
    SETTLED,
    SLOW,
    AtOnce,
)
from backupgw.kvstore.backends.posixfs_kind import is_local


def opened(path: Path, *, file_mode: int = 0o600, durability: str = "fast") -> PosixFS:
    place = PosixFS(str(path), durability=durability, file_mode=file_mode)  # type: ignore[arg-type]
    place.create()
    place.open()
    place.mkdir("data")
    return place


def test_a_small_value_is_there_when_the_call_returns(tmp_path: Path) -> None:
    place = opened(tmp_path / "place")
    assert place.store_nowait("data/item", b"value")
    assert place.load("data/item") == b"value"
    assert [path.name for path in (tmp_path / "place/data").iterdir()] == ["item"]
    place.close()


def test_what_takes_longer_is_left_to_threads(tmp_path: Path) -> None:
    place = opened(tmp_path / "place")
    assert not place.store_nowait("data/item", bytes(LARGEST + 1))
    assert not place.store_nowait("new/item", b"its folder must be made")
    place.store("data/old", b"old")
    assert not place.store_nowait("data/old", b"what it replaces must be told apart")
    assert place.load("data/old") == b"old"
    place.close()


def test_where_writes_are_synced_a_loop_never_writes(tmp_path: Path) -> None:
    place = opened(tmp_path / "place", durability="full")
    assert not place.store_nowait("data/item", b"value")
    place.close()


def test_on_a_network_a_loop_never_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posixfs, "is_local", lambda _fd: False)
    place = opened(tmp_path / "place")
    assert not place.store_nowait("data/item", b"value")
    place.close()


def test_local_file_systems_are_known(tmp_path: Path) -> None:
    for path, local in ((tmp_path, True), (Path("/proc/self"), False)):
        fd = os.open(path, os.O_RDONLY)
        assert is_local(fd) is local
        os.close(fd)


def test_it_gets_the_modes_of_any_other_item(tmp_path: Path) -> None:
    place = opened(tmp_path / "place", file_mode=0o664)
    assert place.store_nowait("data/item", b"value")
    assert stat.S_IMODE((tmp_path / "place/data/item").stat().st_mode) == 0o664
    place.close()


def tried(at_once: AtOnce, asked: int, *, seconds: float) -> int:
    """Return how many of so many writes, each taking so long, were made by the loop."""
    made = 0
    for _ in range(asked):
        if at_once.may(1):
            made += 1
            at_once.took(seconds)
    return made


def test_a_disk_that_always_stalls_stops_the_loop_for_one_write_in_thousands() -> None:
    at_once = AtOnce(0o600)
    tried(at_once, 3 * MOST, seconds=2 * SLOW)
    assert tried(at_once, 10 * MOST, seconds=2 * SLOW) <= 10


def test_one_stall_costs_a_short_pause_and_is_forgotten() -> None:
    at_once = AtOnce(0o600)
    at_once.took(2 * SLOW)
    assert tried(at_once, FEWEST, seconds=SLOW / 10) == 0
    assert tried(at_once, SETTLED, seconds=SLOW / 10) == SETTLED
    at_once.took(2 * SLOW)
    assert tried(at_once, FEWEST + 1, seconds=SLOW / 10) == 1


def test_a_quick_disk_is_always_written_by_the_loop() -> None:
    assert tried(AtOnce(0o600), 1000, seconds=SLOW / 10) == 1000
