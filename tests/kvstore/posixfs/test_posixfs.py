"""What the backend for local folders promises beyond what every backend does."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore.backends import (
    beneath,
    posixfs_naming,
    posixfs_writeback,
    posixfs_writer,
)
from backupgw.kvstore.backends.errors import (
    BackendError,
    BackendURLInvalid,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
)
from backupgw.kvstore.backends.posixfs import PosixFS, from_url
from backupgw.kvstore.registry import open_place


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


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


@pytest.mark.parametrize("local", [True, False])
def test_a_writer_knows_whether_its_name_is_new(
    place: PosixFS, root: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    monkeypatch.setattr(place, "_local", local)
    place.mkdir("a/folder")
    place.store("a/item", b"")
    (root / "a/link").symlink_to("nowhere")

    def is_new(name: str) -> bool:
        writer = place.open_writer(name, size=0, if_absent=True)
        assert isinstance(writer, posixfs_writer.PosixWriter)
        try:
            return writer.surely_new(name)
        finally:
            writer.abort()

    assert is_new("a/new")
    assert not any(is_new(f"a/{name}") for name in ("folder", "item", "link"))
    assert not is_new("b/new"), "there is no folder to look into"


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


def test_without_unnamed_files_the_promises_are_the_same(
    place: PosixFS, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_open = os.open

    def no_tmpfile(path: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE")
        return plain_open(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", no_tmpfile)
    writer = place.open_writer("item", if_absent=True)
    writer.write(b"value")
    assert len(os.listdir(root)) == 1  # the hidden name
    assert list(place.list("")) == []
    writer.commit()
    assert os.listdir(root) == ["item"]
    with pytest.raises(ObjectExists), place.open_writer("item", if_absent=True) as writer:
        writer.write(b"other")
    with place.open_writer("item") as writer:
        writer.write(b"newer")
    place.open_writer("gone").abort()
    assert files(root) == ["item"]
    assert place.load("item") == b"newer"


@pytest.mark.parametrize("noreplace", [True, False], ids=["renameat2", "lock"])
def test_without_hard_links_one_of_many_creators_wins(
    place: PosixFS, root: Path, monkeypatch: pytest.MonkeyPatch, noreplace: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    plain_open = os.open

    def no_tmpfile(path: str, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            refuse()
        return plain_open(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", no_tmpfile)
    monkeypatch.setattr(os, "link", refuse)
    if not noreplace:
        monkeypatch.setattr(posixfs_naming, "rename_noreplace", refuse)
    won: list[int] = []

    def create(number: int) -> None:
        try:
            with place.open_writer("item", if_absent=True) as writer:
                writer.write(b"%d" % number)
        except ObjectExists:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.load("item") == b"%d" % won[0]
    assert files(root) == ["item"]


def test_stale_temporary_files_are_reaped_and_live_ones_left(place: PosixFS, root: Path) -> None:
    place.store("a/item", b"value")
    dead = root / "a" / ".backupgw-tmp-0123"
    live = root / "a" / ".backupgw-tmp-4567"
    for path in (dead, live):
        path.write_bytes(b"partial")
    os.utime(dead, (0, 0))
    assert [i.name for i in place.list("a")] == ["item"]
    assert files(root) == ["a/.backupgw-tmp-4567", "a/item"]
    os.utime(live, (0, 0))
    assert place.reap(3600) == 1
    assert files(root) == ["a/item"]


def test_a_checkpoint_is_carried_on_by_another_process(place: PosixFS, root: Path) -> None:
    value = b"first half, " + b"second half"
    digest = hashlib.sha256(value).hexdigest()
    writer = place.open_writer("folder/item", size=len(value), expected_hash=digest)
    writer.write(value[:12])
    token = writer.checkpoint()
    assert list(place.list("folder")) == []
    code = (
        "import sys; from backupgw.kvstore.backends.posixfs import PosixFS\n"
        "with PosixFS(sys.argv[1]) as place:\n"
        "    writer = place.resume_writer(sys.argv[2])\n"
        "    assert writer.offset == 12\n"
        "    writer.write(b'second half')\n"
        "    writer.commit()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(root), token], check=True)
    assert place.load("folder/item") == value
    with pytest.raises(ObjectNotFound):
        place.resume_writer(token)
    assert files(root) == ["folder/item"]


def test_two_cannot_carry_on_one_checkpoint(place: PosixFS) -> None:
    writer = place.open_writer("item")
    writer.write(b"x")
    token = writer.checkpoint()
    first = place.resume_writer(token)
    with pytest.raises(BackendError, match="another process"):
        place.resume_writer(token)
    first.abort()
    place.abort_writer(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "{}",
        "[1]",
        '[1,"../x",null,false,null,".backupgw-part-' + "0" * 32 + '"]',
        '[1,"x",null,false,null,"../../etc/passwd"]',
        '[1,"x",null,false,null,"item"]',
    ],
)
def test_a_forged_token_opens_nothing(place: PosixFS, token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        place.resume_writer(token)
    with pytest.raises(ValueError, match="token"):
        place.abort_writer(token)


def test_a_writer_takes_no_more_and_no_less_than_its_size(place: PosixFS, root: Path) -> None:
    with pytest.raises(ContentMismatch), place.open_writer("item", size=3) as writer:
        writer.write(b"four")
    with pytest.raises(ContentMismatch), place.open_writer("item", size=3) as writer:
        writer.write(b"ab")
    assert files(root) == []


def test_commit_may_be_repeated_once_the_way_is_free(place: PosixFS) -> None:
    writer = place.open_writer("item", if_absent=True)
    writer.write(b"new")
    place.store("item", b"old")
    with pytest.raises(ObjectExists):
        writer.commit()
    place.quarantine("item")
    writer.commit()
    assert place.load("item") == b"new"


def test_a_long_value_goes_to_the_disk_while_more_of_it_comes(
    place: PosixFS, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    went: list[int] = []
    seen = threading.Event()

    def record(fd: int, offset: int, length: int, _flags: int) -> int:
        asked.append((offset, length))
        went.append(os.fstat(fd).st_size)
        seen.set()
        return 0

    monkeypatch.setattr(posixfs_writeback, "_call", record)
    piece, before = bytes(1 << 20), len(os.listdir("/proc/self/fd"))
    with place.open_writer("short", size=15 << 20) as writer:
        for _ in range(15):
            writer.write(piece)
    assert not asked
    writer = place.open_writer("long", size=40 << 20)
    for _ in range(17):
        writer.write(piece)
    assert seen.wait(10), "not before all has come"
    token = writer.checkpoint()
    writer = place.resume_writer(token)  # nobody else holds it
    for _ in range(23):
        writer.write(piece)
    writer.commit()
    assert (root / "long").stat().st_size == 40 << 20
    end = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < end, "a descriptor is left open"
        time.sleep(0.01)
    assert asked == [(0, 16 << 20), (17 << 20, 16 << 20)]
    assert all(size >= offset + length for size, (offset, length) in zip(went, asked, strict=True))


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


@pytest.mark.parametrize(
    "url", ["file:relative", "file://host/path", "file:///a?b", "file:///a#b", "file:///a%00b"]
)
def test_a_url_that_names_no_folder_is_refused(url: str) -> None:
    with pytest.raises(BackendURLInvalid):
        from_url(url)


def test_a_url_is_decoded(tmp_path: Path) -> None:
    backend = from_url(f"file://{tmp_path}/with%20blank%3F")
    backend.create()
    assert (tmp_path / "with blank?").is_dir()


@pytest.mark.parametrize(
    "option",
    [
        {"durability": "slow"},
        {"durability": None},
        {"follow": 5},
        {"follow": ["relative"]},
        {"follow": [5]},
        {"file_mode": "rw"},
        {"file_mode": 640},
        {"file_mode": 0o400},
        {"folder_mode": 0o660},
        {"folder_mode": True},
    ],
    ids=str,
)
def test_an_option_without_a_possible_value_is_named(option: dict[str, Any]) -> None:
    with pytest.raises(BackendURLInvalid, match=next(iter(option))):
        open_place("file:///srv/place", **option)


def test_options_may_come_as_text(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/place", file_mode="0640", follow="/mnt/disk")
    place.create()
    with place:
        place.store("a", b"")
    assert stat.S_IMODE((tmp_path / "place/a").stat().st_mode) == 0o640


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


def test_a_value_is_synced_then_named_and_then_all_its_new_folders_are_synced(
    place: PosixFS, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss right after the store takes neither the value nor a folder on the way to it;
    also where the value found its name taken and was stored by a second attempt."""
    synced: dict[str, bool] = {}
    fsync = os.fsync
    item = root / "new/newer/item"

    def record(fd: int) -> None:
        synced[os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")] = item.exists()
        fsync(fd)

    descriptors = os.listdir("/proc/self/fd")
    writer = place.open_writer("new/newer/item", if_absent=True)
    writer.write(b"value")
    place.store("new/newer/item", b"sooner")
    monkeypatch.setattr(os, "fsync", record)
    with pytest.raises(ObjectExists):
        writer.commit()
    item.unlink()
    synced.clear()
    writer.commit()
    [file] = set(synced) - {str(root), str(root / "new"), str(root / "new/newer")}
    assert synced == {
        file: False,
        str(root): True,
        str(root / "new"): True,
        str(root / "new/newer"): True,
    }
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_write_given_up_after_its_folders_were_made_holds_nothing(place: PosixFS) -> None:
    descriptors = os.listdir("/proc/self/fd")
    writer = place.open_writer("new/newer/item", if_absent=True)
    writer.write(b"value")
    place.store("new/newer/item", b"sooner")
    with pytest.raises(ObjectExists):
        writer.commit()
    writer.abort()
    assert os.listdir("/proc/self/fd") == descriptors
    assert place.load("new/newer/item") == b"sooner"


def test_items_are_stored_where_there_is_no_proc(
    place: PosixFS, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posixfs_writer, "_OPEN_FILES", "/missing/proc/self/fd")
    with place.open_writer("a/b", if_absent=True) as writer:
        writer.write(b"value")
    place.store("a/b", b"newer")
    assert place.load("a/b") == b"newer"
    assert files(root) == ["a/b"]


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
