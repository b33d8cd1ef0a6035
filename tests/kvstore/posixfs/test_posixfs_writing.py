"""A file on its way into a local folder: named once it is whole, synced before that is told, and
carried on by who has its token."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.kvstore.posixfs.folders import files

from backupgw.kvstore.backends import posixfs_naming, posixfs_writeback, posixfs_writer
from backupgw.kvstore.backends.errors import (
    BackendError,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
)
from backupgw.kvstore.backends.posixfs import PosixFS


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
