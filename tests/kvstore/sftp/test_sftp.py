"""What a place on OpenSSH has of its own: links, special files, names, modes, syncs, leftovers,
connections."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kvstore.sftp.places import place, refused, through
from tests.servers.process import ServerProcess
from tests.servers.sshd import Sshd

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendDoesNotExist,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
)

pytestmark = pytest.mark.root("sshd", "strace")


@pytest.fixture
def backend(sshd: Sshd, served: Path) -> Iterator[Backend]:
    with place(sshd, served) as backend:
        yield backend


# -- links and special files


def test_symbolic_links_are_not_followed(backend: Backend, served: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (served / "item").write_bytes(b"value")
    (served / "file-link").symlink_to(outside / "secret")
    (served / "inner-link").symlink_to("item")
    (served / "folder-link").symlink_to(outside)
    assert [info.name for info in backend.list("")] == ["item"]
    for name in ("file-link", "inner-link", "folder-link", "folder-link/secret"):
        with pytest.raises(PermissionDenied, match="symbolic link"):
            backend.open_reader(name)
        with pytest.raises(PermissionDenied, match="symbolic link"):
            backend.info(name)
    for act in (
        lambda: next(backend.list("folder-link")),
        lambda: backend.store("folder-link/new", b"x"),
        lambda: backend.store("folder-link/deeper/new", b"x"),
        lambda: backend.mkdir("folder-link/new"),
        lambda: backend.delete("folder-link/secret"),
        lambda: backend.move("folder-link/secret", "stolen"),
        lambda: backend.move("item", "folder-link/new"),
        lambda: backend.rmdir("folder-link/new"),
        lambda: backend.copy("folder-link/secret", "stolen"),
        lambda: backend.hash("folder-link/secret"),
        lambda: backend.sync("folder-link/secret"),
        lambda: backend.quarantine("folder-link/secret"),
    ):
        with pytest.raises(PermissionDenied, match="symbolic link"):
            act()
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"
    backend.store("file-link", b"mine")  # the name is taken over, what it led to is not touched
    assert (outside / "secret").read_bytes() == b"secret"
    assert backend.load("file-link") == b"mine"


def test_the_place_itself_may_be_a_link(sshd: Sshd, served: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(served)
    with place(sshd, tmp_path / "link") as backend:
        backend.store("item", b"value")
    assert (served / "item").read_bytes() == b"value"


def test_what_is_neither_item_nor_folder(backend: Backend, served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(served / "socket"))
        assert [*backend.list("")] == []
        assert not backend.info("socket").exists
        with pytest.raises(ObjectNotFound):
            backend.open_reader("socket")


# -- names


def test_every_sign_that_a_name_may_have(sshd: Sshd, served: Path) -> None:
    signs = [chr(code) for code in (*range(1, 0x180), 0x2028, 0xFEFF, 0xFFFD, 0x1F5C4)]
    names = [f"a{sign}b" for sign in signs if sign != "/"]
    with place(sshd, served, durability="fast") as backend:
        for name in names:
            backend.store(name, name.encode())
        assert sorted(info.name for info in backend.list("")) == sorted(names)
        assert sorted(os.listdir(served)) == sorted(names)
        for name in names:
            assert backend.load(name) == name.encode()


def test_names_that_are_no_text_are_left_alone(backend: Backend, served: Path) -> None:
    with open(os.fsencode(served) + b"/\xff\xfe", "wb"):
        pass
    backend.store("item", b"")
    assert [info.name for info in backend.list("")] == ["item"]


# -- writing


def test_modes(sshd: Sshd, served: Path) -> None:
    with place(sshd, served) as backend:
        backend.store("own/item", b"")
    with place(sshd, served, file_mode="640", folder_mode=0o2750 & 0o777) as backend:
        backend.store("group/item", b"")
    modes = {
        str(path.relative_to(served)): stat.S_IMODE(path.stat().st_mode)
        for path in served.rglob("*")
    }
    assert modes == {
        "own": 0o700,
        "own/item": 0o600,
        "group": 0o750,
        "group/item": 0o640,
    }


def traced(sshd: Sshd, tmp_path: Path, act: Any) -> list[str]:
    """Return the system calls that name, sync and remove files while `act` runs, in their order,
    with temporary names as TMP."""
    log = tmp_path / "trace"
    calls = "fsync,rename,renameat,renameat2,link,linkat,unlink,mkdir"
    pids = [word for pid in sshd.sessions for word in ("-p", str(pid))]
    command = ["strace", "-f", "-y", "-e", f"trace={calls}", "-o", str(log), *pids]
    with ServerProcess(command, ready="attached"):
        act()
    found = []
    for line in log.read_text().splitlines():
        match = re.search(r"(\w+)\((.*)\) += 0", line)
        if match is None:
            continue
        names = re.findall(r'[<"/]([^/<>"]+)[">]', match[2])
        short = ["TMP" if name.startswith(".backupgw-tmp") else name for name in names]
        found.append(" ".join((match[1], *short)))
    return found


def test_the_order_in_which_a_value_becomes_durable(
    sshd: Sshd, served: Path, tmp_path: Path
) -> None:
    def create(backend: Backend) -> None:
        with backend.open_writer("folder/item", if_absent=True) as writer:
            writer.write(b"value")

    with place(sshd, served, connections=1, sessions=1) as backend:
        created = traced(sshd, tmp_path, lambda: create(backend))
        assert created == [
            "fsync TMP",
            "mkdir folder",
            "fsync served",
            "link TMP item",
            "unlink TMP",
            "fsync folder",
        ]
        replaced = traced(sshd, tmp_path, lambda: backend.store("folder/item", b"new"))
        assert replaced == ["fsync TMP", "rename TMP item", "fsync folder"]
        deleted = traced(sshd, tmp_path, lambda: backend.delete("folder/item"))
        assert deleted == ["unlink item", "fsync folder"]
    with place(sshd, served, connections=1, sessions=1, durability="fast") as backend:
        fast = traced(sshd, tmp_path, lambda: backend.store("folder/item", b"new"))
        assert fast == ["rename TMP item"]


def test_a_large_value_is_synced_while_it_is_sent(
    sshd: Sshd, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backupgw.kvstore.backends.sftp_flushing._EVERY", 2 << 20)
    value = os.urandom(24 << 20)
    with place(sshd, served, connections=1, sessions=2) as backend:
        # A second session is opened while the first is in use; who traces looks for both.
        with backend.open_writer("first"):
            backend.store("second", b"")
        calls = traced(sshd, tmp_path, lambda: backend.store("large", value))
        assert calls[-2:] == ["rename TMP large", "fsync served"]
        assert len(calls) > 4
        assert set(calls[:-2]) == {"fsync TMP"}
        assert backend.load("large") == value


def test_copies_are_made_by_the_server(sshd: Sshd, backend: Backend, served: Path) -> None:
    value = os.urandom(3 << 20)
    backend.store("item", value)
    assert backend.capabilities.copy
    backend.copy("item", "folder/copy")
    assert (served / "folder/copy").read_bytes() == value
    backend.defrag([("item", 5, 1000), ("folder/copy", 7, 1 << 20)], "joined")
    assert (served / "joined").read_bytes() == value[5:1005] + value[7 : 7 + (1 << 20)]


def test_quota_is_the_disks(backend: Backend, served: Path) -> None:
    disk = os.statvfs(served)
    assert backend.quota().limit == disk.f_blocks * disk.f_frsize


def test_what_dead_writers_left_is_removed_by_its_age(backend: Backend, served: Path) -> None:
    backend.store("folder/item", b"value")
    day = 24 * 3600
    ages = {
        ".backupgw-tmp-0123456789abcdef": 2 * day,
        ".backupgw-tmp-fedcba9876543210": 3600,
        ".backupgw-part-0123": 3 * day,
        ".backupgw-part-4567": 30 * day,
        ".backupgw-quarantine-x": 30 * day,
    }
    for name, age in ages.items():
        (served / "folder" / name).touch()
        os.utime(served / "folder" / name, (time.time() - age,) * 2)
    assert [info.name for info in backend.list("folder")] == ["item"]
    left = {
        ".backupgw-tmp-fedcba9876543210",
        ".backupgw-part-0123",
        ".backupgw-quarantine-x",
        "item",
    }
    assert {*os.listdir(served / "folder")} == left, "a listing removes what is a day old"
    assert backend.reap(60) == 1
    assert {*os.listdir(served / "folder")} == left - {".backupgw-tmp-fedcba9876543210"}
    assert os.listdir(served) == ["folder"]


def test_a_checkpoint_is_carried_on_by_one_only(backend: Backend, served: Path) -> None:
    writer = backend.open_writer("folder/item", size=6)
    writer.write(b"abc")
    token = writer.checkpoint()
    assert sorted(os.listdir(served)) == ["folder"]
    assert "sftp" not in token
    one = backend.resume_writer(token)
    with pytest.raises(ObjectNotFound):
        backend.resume_writer(token)
    one.write(b"def")
    one.commit()
    assert backend.load("folder/item") == b"abcdef"
    assert os.listdir(served / "folder") == ["item"]


def test_what_is_replaced_all_the_time_is_read_whole(sshd: Sshd, served: Path) -> None:
    """One session for all, so that a handle that is closed is another file's at once."""
    names = ["one", "two", "three"]
    sizes = [10, 20_000, 700_000]
    with place(sshd, served, connections=1, sessions=1) as backend:
        for name in names:
            backend.store(name, b"0" * sizes[0])
        ends = time.monotonic() + 2
        wrong: list[str] = []
        seen: set[int] = set()

        def replace() -> None:
            turn = 0
            while time.monotonic() < ends:
                turn += 1
                for name in names:
                    value = (served / name).with_suffix(".new")
                    value.write_bytes(b"%d" % (turn % 10) * sizes[turn % 3])
                    value.rename(served / name)

        def read(name: str) -> None:
            while time.monotonic() < ends:
                value = backend.load(name)
                seen.add(len(value))
                if len(value) not in sizes or value != value[:1] * len(value):
                    wrong.append(f"{name}: {len(value)} bytes")

        threads = [threading.Thread(target=read, args=(name,)) for name in names * 2]
        threads.append(threading.Thread(target=replace))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert seen == set(sizes)


def test_two_movers_to_free_names(backend: Backend, served: Path) -> None:
    backend.store("item", b"value")
    backend.store("taken", b"other")
    with pytest.raises(ObjectExists):
        backend.move_if_absent("item", "taken")
    backend.move_if_absent("item", "free")
    with pytest.raises(ObjectNotFound):
        backend.move_if_absent("item", "again")
    assert sorted(os.listdir(served)) == ["free", "taken"]


@pytest.mark.soak
def test_a_hundred_thousand_entries(sshd: Sshd, served: Path) -> None:
    for number in range(100_000):
        (served / f"{number:064}").touch()
    with place(sshd, served) as backend:
        tracemalloc.start()
        assert sum(1 for _ in backend.list("")) == 100_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20
    subprocess.run(["find", served, "-type", "f", "-delete"], check=True)


# -- connections


def descriptors() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except FileNotFoundError:
            continue
    return found


def test_closing_leaves_neither_thread_nor_socket(
    sshd: Sshd, jumps: list[Sshd], served: Path
) -> None:
    config = through(sshd, jumps, "ProxyJump jump1")
    before, threads = descriptors(), {*threading.enumerate()}
    with place(sshd, served, ssh_config=config) as backend:
        writers = [backend.open_writer(f"item{number}") for number in range(20)]
        for writer in writers:
            writer.abort()
        assert {*threading.enumerate()} > threads
    refused(place(sshd, served, key_file=str(sshd.folder / "other-host")))
    refused(place(sshd, served / "missing", ssh_config=config), BackendDoesNotExist)
    left = {thread for thread in {*threading.enumerate()} - threads if thread.is_alive()}
    assert not left
    assert descriptors() <= before


def test_a_forked_process_has_connections_of_its_own(sshd: Sshd, served: Path) -> None:
    with place(sshd, served) as backend:
        backend.store("item", b"parent's")
        reader = backend.open_reader("item")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                backend.store("child", b"child's")
                status = 0 if backend.load("item") == b"parent's" else 2
                backend.close()
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(ended) == 0
        assert reader.read(100) == b"parent's"
        reader.close()
        assert backend.load("child") == b"child's"


def test_what_only_match_exec_needs_is_imported_when_it_is_needed() -> None:
    program = (
        "import sys\n"
        "import backupgw.kvstore.backends.sftp\n"
        "from paramiko import SSHConfig\n"
        "print('asyncio' in sys.modules, 'invoke.runners' in sys.modules)\n"
        "config = SSHConfig.from_text('Match exec \"true\"\\n  User found\\n')\n"
        "print(config.lookup('box')['user'], 'invoke.runners' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "found", "True"]
