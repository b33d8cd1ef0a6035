"""What the backend for local folders promises beyond what every backend does."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from tests.kvstore.posixfs.folders import files

from backupgw.kvstore.backends import beneath
from backupgw.kvstore.backends.errors import (
    BackendError,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
)
from backupgw.kvstore.backends.posixfs import PosixFS


def test_files_and_folders_are_the_owners_alone(place: PosixFS, root: Path) -> None:
    place.store("a/b/c", b"secret")
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o600
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o700


def test_what_was_just_looked_for_is_surely_missing(place: PosixFS, root: Path) -> None:
    place.mkdir("a")
    assert not place.info("a/b").exists
    assert place.surely_missing("a/b")
    (root / "a/b").symlink_to("/")
    assert not place.surely_missing("a/b"), "something is there, whatever it is"


def test_group_modes_are_exact_whatever_the_umask(root: Path) -> None:
    previous = os.umask(0o077)
    try:
        backend = PosixFS(str(root), file_mode=0o660, folder_mode=0o770)
        backend.create()
        with backend:
            backend.store("a/b", b"shared")
            backend.mkdirs(["x/y"])
    finally:
        os.umask(previous)
    assert stat.S_IMODE(root.stat().st_mode) == 0o770
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o660
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o770
    assert stat.S_IMODE((root / "x/y").stat().st_mode) == 0o770


@pytest.mark.parametrize("openat2", [True, False], ids=["openat2", "walk"])
class TestConfinement:
    @pytest.fixture(autouse=True)
    def _way(self, openat2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if not openat2:
            monkeypatch.setattr(beneath, "_openat2_works", lambda: False)

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        folder = tmp_path / "outside"
        folder.mkdir()
        (folder / "canary").write_bytes(b"canary")
        return folder

    @pytest.mark.parametrize("depth", ["", "a/", "a/b/"])
    def test_a_link_to_outside_leads_nowhere(self, root: Path, outside: Path, depth: str) -> None:
        (root / depth).mkdir(parents=True)
        (root / depth / "folder").symlink_to(outside)
        (root / depth / "item").symlink_to(outside / "canary")
        with PosixFS(str(root)) as place:
            for name in (f"{depth}folder/canary", f"{depth}item"):
                with pytest.raises((PermissionDenied, ObjectNotFound)):
                    place.load(name)
                with pytest.raises((PermissionDenied, ObjectNotFound)):
                    place.open_reader_nowait(name) or place.open_reader(name)
            with pytest.raises((PermissionDenied, ObjectNotFound)):
                place.store(f"{depth}folder/new", b"x")
            with pytest.raises((PermissionDenied, ObjectNotFound)):
                place.delete(f"{depth}folder/canary")
            with pytest.raises((PermissionDenied, ObjectNotFound)):
                place.move(f"{depth}folder/canary", "stolen")
            with pytest.raises((PermissionDenied, ObjectNotFound)):
                place.mkdir(f"{depth}folder/made")
            with pytest.raises((PermissionDenied, ObjectNotFound)):
                list(place.list(f"{depth}folder"))
            assert {"folder", "item"}.isdisjoint(i.name for i in place.list(depth.strip("/")))
        assert files(outside) == ["canary"]
        assert (outside / "canary").read_bytes() == b"canary"

    def test_overwriting_a_planted_link_replaces_the_link(self, root: Path, outside: Path) -> None:
        root.mkdir()
        (root / "item").symlink_to(outside / "canary")
        with PosixFS(str(root)) as place:
            place.store("item", b"ours")
            assert place.load("item") == b"ours"
        assert (outside / "canary").read_bytes() == b"canary"

    def test_listed_targets_are_followed_and_the_others_named(
        self, root: Path, outside: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other disk"
        other.mkdir()
        (root / "repos").mkdir(parents=True)
        (root / "repos/taken").symlink_to(other)
        (root / "repos/bad").symlink_to(outside)
        (root / "repos/relative").symlink_to("../../outside")
        with PosixFS(str(root), follow=[str(other)]) as place:
            place.store("repos/taken/data/ab/item", b"value")
            assert place.load("repos/taken/data/ab/item") == b"value"
            assert [i.name for i in place.list("repos")] == ["taken"]
            assert place.info("repos/taken").directory
            place.delete("repos/taken/data/ab/item")
            assert sorted(path for path, _ in place.unlisted_links()) == [
                "repos/bad",
                "repos/relative",
            ]
        assert (other / "data/ab").is_dir()

    def test_what_is_no_file_is_no_item_and_stops_nobody(self, root: Path) -> None:
        root.mkdir()
        os.mkfifo(root / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{root}/socket")
        with PosixFS(str(root)) as place:
            assert list(place.list("")) == []
            for name in ("fifo", "socket"):
                assert not place.info(name).exists
                with pytest.raises(ObjectNotFound):
                    place.load(name)


def test_quarantine_keeps_the_item_out_of_every_name(place: PosixFS, root: Path) -> None:
    place.store("repo/data/ab/item", b"damaged")
    kept = place.quarantine("repo/data/ab/item")
    assert (root / kept).read_bytes() == b"damaged"
    assert not place.info("repo/data/ab/item").exists
    assert [i.name for i in place.list("")] == ["repo"]


def test_no_descriptor_is_left_open(place: PosixFS) -> None:
    before = os.listdir("/proc/self/fd")
    place.store("a/b", b"value")
    place.load("a/b")
    place.list("a")  # never started
    listing = place.list("a")
    next(listing)
    del listing
    for name in ("a", "missing/x", "a/b/c"):
        with pytest.raises(BackendError):
            place.load(name)
    with pytest.raises(BackendError), place.open_writer("a/b/c") as writer:
        writer.write(b"")
    with pytest.raises(ObjectExists), place.open_writer("a/b", if_absent=True) as writer:
        writer.write(b"")
    with pytest.raises(BackendError), place.open_writer("a") as writer:
        writer.write(b"")
    place.resume_writer(_checkpoint(place)).abort()
    place.move("a/b", "c/d")
    place.delete("c/d")
    place.quarantine(_stored(place))
    assert os.listdir("/proc/self/fd") == before


def _checkpoint(place: PosixFS) -> str:
    writer = place.open_writer("part")
    writer.write(b"x")
    return writer.checkpoint()


def _stored(place: PosixFS) -> str:
    place.store("q", b"")
    return "q"


def test_the_folder_of_a_place_is_durable_with_those_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync

    def record(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    PosixFS(str(tmp_path / "new/newer/place")).create()
    assert set(synced) == {str(tmp_path), str(tmp_path / "new"), str(tmp_path / "new/newer")}


@pytest.mark.root("mount", "umount")
def test_a_mount_point_is_emptied_when_its_place_is_destroyed(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True, timeout=60)
    try:
        place = PosixFS(str(disk))
        place.create()
        with place:
            place.store("folder/item", b"value")
        place.destroy()
        assert list(disk.iterdir()) == []
        place.create()
    finally:
        subprocess.run(["umount", str(disk)], check=True, timeout=60)


def test_what_could_not_be_emptied_was_not_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = PosixFS(str(tmp_path / "place"))
    place.create()
    with place:
        place.store("item", b"value")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PermissionDenied):
        place.destroy()
    assert (tmp_path / "place/item").read_bytes() == b"value"
