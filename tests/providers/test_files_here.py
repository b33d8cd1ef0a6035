"""Files of this machine that come from a provider: on the disk when they have their name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backupgw.providers.files_here import NewFile


def test_a_file_and_all_folders_made_for_it_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def recorded(fd: int) -> None:
        fsync(fd)
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())

    monkeypatch.setattr(os, "fsync", recorded)
    file = tmp_path / "photos" / "2026" / "may.jpg"
    with NewFile(file) as new:
        new.write_at(b"picture", 0)
    assert file.read_bytes() == b"picture"
    # A name is on the disk once the folder that has it was synced after it got it.
    assert synced[0].parent == file.parent
    assert {*synced[1:]} == {file.parent, file.parent.parent, tmp_path}


def test_what_need_not_be_on_the_disk_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: pytest.fail("synced"))
    with NewFile(tmp_path / "new" / "file", sync=False) as new:
        new.write_at(b"picture", 0)
    assert (tmp_path / "new" / "file").read_bytes() == b"picture"
