"""What happens to a place on OpenSSH when something breaks: nothing half, and the truth is told."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.faults.volumes import tmpfs
from tests.kvstore.sftp.places import HOST, factory, place, settings
from tests.servers.faulty_proxy import FaultyProxy
from tests.servers.sshd import Sshd

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    PermissionDenied,
    StorageFull,
)

pytestmark = pytest.mark.root("sshd")

BIG = 24 << 20
"""Bytes: much more than windows and buffers between both ends hold."""


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as sshd:
        yield sshd


def read_all(backend: Backend, name: str) -> bytes:
    with backend.open_reader(name) as reader:
        return b"".join(iter(lambda: reader.read(1 << 18), b""))


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(".backupgw")]


# -- connections that are killed


def test_killed_in_the_middle_of_reading(sshd: Sshd, served: Path) -> None:
    value = os.urandom(BIG)
    (served / "item").write_bytes(value)
    with place(sshd, served) as backend:
        reader = backend.open_reader("item")
        got = reader.read(1000)
        assert sshd.drop()

        def go_on() -> None:
            nonlocal got
            while part := reader.read(1 << 20):
                got += part

        with pytest.raises(BackendConnectionError) as caught:
            go_on()
        assert caught.value.retryable
        assert value.startswith(got)
        reader.close()
        assert read_all(backend, "item") == value, "and the next one is served"


def test_killed_in_the_middle_of_writing(sshd: Sshd, served: Path) -> None:
    with place(sshd, served) as backend:
        backend.store("item", b"old")
        writer = backend.open_writer("item")
        writer.write(os.urandom(BIG // 2))
        assert sshd.drop()

        def finish() -> None:
            writer.write(os.urandom(BIG // 2))
            writer.commit()

        with pytest.raises(BackendConnectionError) as caught:
            finish()
        assert caught.value.retryable
        with pytest.raises(BackendError):
            writer.commit()
        writer.abort()
        assert backend.load("item") == b"old"
        assert [info.name for info in backend.list("")] == ["item"]
        assert backend.reap(0) == len(["the one that was being written"])
        assert hidden(served) == []


def test_killed_in_the_middle_of_listing(sshd: Sshd, served: Path) -> None:
    for number in range(1500):
        (served / f"item{number:04}").touch()
    with place(sshd, served) as backend:
        entries = backend.list("")
        next(entries)
        assert sshd.drop()
        with pytest.raises(BackendConnectionError) as caught:
            for _ in entries:
                pass
        assert caught.value.retryable
        assert len([*backend.list("")]) == 1500
    with open_place(
        f"sftp://{HOST}/{served}", layers=["retry"], ssh_config=str(settings(sshd, "retry"))
    ) as backend:
        entries = backend.list("")
        names = [next(entries).name]
        assert sshd.drop()
        names += [info.name for info in entries]
        assert sorted(names) == sorted(os.listdir(served)), "the retry layer goes on in it"


def test_a_server_that_was_restarted_is_connected_to_again(sshd: Sshd, served: Path) -> None:
    calls: list[Callable[[Backend], object]] = [
        lambda backend: backend.store("new", b"value"),
        lambda backend: backend.load("item"),
        lambda backend: [*backend.list("")],
        lambda backend: backend.info("item"),
        lambda backend: backend.mkdir("folder"),
        lambda backend: backend.move("item", "moved"),
        lambda backend: backend.delete("moved"),
        lambda backend: backend.quota(),
    ]
    with place(sshd, served) as backend:
        backend.store("item", b"value")
        for call in calls:
            sshd.stop()
            sshd.start()
            call(backend)
        assert sorted(os.listdir(served)) == ["folder", "new"]
        sshd.stop()
        with pytest.raises(BackendConnectionError) as caught:
            backend.load("new")
        assert caught.value.retryable
        sshd.start()
        assert backend.load("new") == b"value"


def test_traffic_through_restarts_loses_nothing(sshd: Sshd, served: Path) -> None:
    """Writers that try again after each error: what was acknowledged is there, whole."""
    stop = threading.Event()
    stored: dict[str, bytes] = {}
    wrong: list[str] = []

    def traffic(backend: Backend, seed: int) -> None:
        number = 0
        while not stop.is_set():
            name, value = f"{seed}/{number}", os.urandom(1 + number * 7919 % 700_000)
            try:
                with backend.open_writer(name, size=len(value)) as writer:
                    writer.write(value)
                stored[name] = value
                if backend.load(name) != value:
                    wrong.append(name)
            except BackendError as error:
                if not error.retryable:
                    wrong.append(f"{name}: {error!r}")
            number += 1

    with place(sshd, served) as backend:
        threads = [threading.Thread(target=traffic, args=(backend, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            time.sleep(0.3)
            sshd.drop()
        sshd.stop()
        time.sleep(0.1)
        sshd.start()
        time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert len(stored) > 20
        for name, value in stored.items():
            assert backend.load(name) == value
        backend.reap(0)
    assert hidden(served) == []


def test_a_key_that_is_withdrawn(sshd: Sshd, served: Path) -> None:
    with place(sshd, served) as backend:
        writer = backend.open_writer("under way")
        writer.write(b"x" * 1000)
        (sshd.folder / "authorized_keys").write_text("")
        with backend.open_writer("further") as further:
            further.write(b"the connections that are there go on")
        writer.commit()
        sshd.drop()
        with pytest.raises(PermissionDenied, match="does not let") as caught:
            backend.load("further")
        assert not caught.value.retryable
        assert str(sshd.folder / "client") in str(caught.value)
        sshd.allow()
        assert backend.load("under way") == b"x" * 1000


# -- a server that falls silent


@pytest.mark.alone
def test_a_stopped_session_ends_in_time(sshd: Sshd, served: Path) -> None:
    (served / "item").write_bytes(os.urandom(BIG))
    with place(sshd, served, timeout=1.5) as backend:
        for act in (
            lambda: read_all(backend, "item"),
            lambda: backend.store("new", os.urandom(BIG)),
            lambda: [*backend.list("")],
        ):
            assert backend.info("item").exists
            stopped = sshd.sessions
            for pid in stopped:
                with suppress(ProcessLookupError):  # one that was killed before
                    os.kill(pid, signal.SIGSTOP)
            started = time.monotonic()
            try:
                with pytest.raises(BackendConnectionError) as caught:
                    act()
                assert caught.value.retryable
                assert time.monotonic() - started < 2 * 1.5 + 2
                assert backend.info("item").exists, "a new connection serves the next one"
            finally:
                for pid in stopped:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


@pytest.mark.alone
def test_a_line_on_which_nothing_moves_ends_in_time(sshd: Sshd, served: Path) -> None:
    (served / "item").write_bytes(os.urandom(BIG))
    with FaultyProxy(("127.0.0.1", sshd.port)) as line:
        config = sshd.folder / "through-line"
        block = sshd.config(HOST, "HostKeyAlias box", "StrictHostKeyChecking no")
        config.write_text(block.replace(f"Port {sshd.port}\n", f"Port {line.port}\n"))
        threads = {*threading.enumerate()}
        backend = place(sshd, served, ssh_config=config, timeout=1.5, connect_timeout=1.5)
        with backend:
            with backend.open_reader("item") as reader:
                reader.read(1000)
                line.stall()
                started = time.monotonic()
                with pytest.raises(BackendConnectionError):
                    [*iter(lambda: reader.read(1 << 20), b"")]
                with pytest.raises(BackendConnectionError):
                    backend.store("new", b"value")
                assert time.monotonic() - started < 10
            line.go_on()
            line.cut()
            assert len(read_all(backend, "item")) == BIG
        assert not [each for each in {*threading.enumerate()} - threads if each.is_alive()]


def seconds(act: Callable[[], object]) -> float:
    started = time.monotonic()
    act()
    return time.monotonic() - started


@pytest.mark.alone
def test_a_long_line_does_not_bind_one_stream(sshd: Sshd, served: Path) -> None:
    """With 20 ms there and back, a stream of 16 MiB takes some round trips, not one a piece."""
    value = os.urandom(16 << 20)
    for number in range(2000):
        (served / f"entry{number}").touch()
    with FaultyProxy(("127.0.0.1", sshd.port), latency=0.01) as line:
        config = sshd.folder / "long-line"
        block = sshd.config(HOST, "HostKeyAlias box", "StrictHostKeyChecking no")
        config.write_text(block.replace(f"Port {sshd.port}\n", f"Port {line.port}\n"))
        with place(sshd, served, ssh_config=config) as backend:
            backend.store("small", bytes(range(256)))
            parts = [("small", number % 200, 50) for number in range(160)]
            took = {
                "write": seconds(lambda: backend.store("item", value)),
                "read": seconds(lambda: read_all(backend, "item")),
                "list": seconds(lambda: [*backend.list("")]),
                "gather": seconds(lambda: backend.gather(parts)),
                "load": min(
                    seconds(lambda: backend.load("item", offset=5, size=100)) for _ in range(9)
                ),
            }
    pieces = len(value) / (32 << 10) * 0.02
    assert took["write"] < pieces / 5, took
    assert took["read"] < pieces / 5, took
    assert took["list"] < 20 * 0.02 * 2, took  # a page has 100 entries
    assert took["gather"] < 160 * 0.02, took  # sixteen at once; one by one takes twice that each
    assert took["load"] < 0.02 * 5, took


# -- no room


def test_a_full_disk(sshd: Sshd, tmp_path: Path) -> None:
    with tmpfs(tmp_path, megabytes=20, inodes=40) as volume, place(sshd, volume) as backend:
        backend.store("there before", b"value")
        with pytest.raises(StorageFull) as caught:
            backend.store("big", os.urandom(30 << 20))
        assert "full" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert os.listdir(volume) == ["there before"]
        for number in range(60):
            try:
                backend.store(f"small{number}", b"")
            except StorageFull:
                break
        else:
            pytest.fail("more files than the disk has room for")
        assert backend.load("there before") == b"value"
        assert hidden(volume) == []
        quota = backend.quota()
        assert quota.limit == 20 << 20
        for info in [*backend.list("")]:
            backend.delete(info.name)
        backend.store("after", b"value")


def test_closing_in_the_middle_ends_those_at_work(sshd: Sshd, served: Path) -> None:
    backend = factory(sshd, served)()
    backend.open()
    writer = backend.open_writer("item")
    writer.write(b"part")
    backend.close()
    with pytest.raises(BackendError):
        writer.commit()
    writer.abort()
