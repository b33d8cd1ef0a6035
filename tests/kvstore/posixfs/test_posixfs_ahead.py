"""A folder of which nothing is cached is listed as any other is, and the disk asked for many files
at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupgw.kvstore.backends import posixfs_ahead
from backupgw.kvstore.backends.posixfs import PosixFS

FILES = 3000


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PosixFS]:
    monkeypatch.setattr(
        posixfs_ahead, "SLOW", -1.0
    )  # every file is one for which the disk is asked
    place = PosixFS(str(tmp_path / "place"), durability="fast")
    place.create()
    with place:
        for number in range(FILES):
            (tmp_path / "place" / f"file-{number}").write_bytes(bytes(number % 7))
        (tmp_path / "place" / "folder").mkdir()
        (tmp_path / "place" / "link").symlink_to(tmp_path)
        yield place


def test_each_is_told_once_and_as_it_is(place: PosixFS, tmp_path: Path) -> None:
    found = [(info.name, info.directory, info.size) for info in place.list("")]
    files = {(f"file-{number}", False, number % 7) for number in range(FILES)}
    assert len(found) == len(set(found)) == FILES + 1
    assert {each for each in found if not each[1]} == files
    order = [name for name in os.listdir(tmp_path / "place") if name.startswith("file")]
    assert [name for name, directory, _ in found if not directory] == order


def test_what_goes_meanwhile_is_left_out_or_told(place: PosixFS, tmp_path: Path) -> None:
    listing = place.list("")
    first = next(listing)
    for number in range(FILES):
        if f"file-{number}" != first.name:
            (tmp_path / "place" / f"file-{number}").unlink()
    rest = [info.name for info in listing]
    assert "folder" in {first.name, *rest}
    # What had been looked at is told, nothing that came after it.
    assert len(rest) <= posixfs_ahead.BATCH + 1


def test_a_child_lists_by_threads_of_its_own(place: PosixFS) -> None:
    assert sum(1 for _ in place.list("")) == FILES + 1
    assert any(thread.name.startswith("look-ahead") for thread in threading.enumerate())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if sum(1 for _ in place.list("")) == FILES + 1 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
