"""Bodies that the host sends from a file by itself: right, whole, or cut off for all to see."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from backupgw.runtime.http import file_body
from backupgw.runtime.http.file_body import CutShort, send_span
from tests.runtime.http_process import HostProcess, Wire, wait_for_line
from tests.runtime.test_http_tls import connect, write_pair

MIB = 1 << 20
SIZE = 24 * MIB + 12_345  # more than any socket holds, and no whole number of pages


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@contextmanager
def hosting(file: Path, log: Path, **options: Any) -> Iterator[HostProcess]:
    settings = {"listen": "127.0.0.1:0", "access_log": str(log), **options}
    with HostProcess(settings, {"file": str(file), "begins_without_task": True}) as host:
        yield host


@pytest.fixture
def host(file: Path, log: Path) -> Iterator[HostProcess]:
    with hosting(file, log) as process:
        yield process


def get(offset: int, size: int, method: str = "GET", announced: str = "") -> bytes:
    return f"{method} /file?{offset},{size}{announced} HTTP/1.1\r\nHost: t\r\n\r\n".encode()


def slow(host: HostProcess) -> Wire:
    """A client that takes little until it reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    sock.connect(("127.0.0.1", host.port))
    return Wire(sock)


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, SIZE),
        (1, SIZE - 1),
        (4095, 9 * MIB),
        (SIZE - 70_000, 70_000),
        (SIZE - 1, 1),
        (5 * MIB + 17, 600_000),
        (0, 128 << 10),
        (3, (64 << 10) * 2 + 1),
    ],
)
def test_every_part_of_a_file_arrives_as_it_is(
    host: HostProcess, content: bytes, offset: int, size: int
) -> None:
    with host.connect() as wire:
        wire.send(get(offset, size))
        answer = wire.answer()
        assert answer.headers["x-sent-by"] == "host"
        assert answer.body == content[offset : offset + size]
        assert wire.request("GET", "/echo").status == 200


def test_answers_to_pipelined_requests_keep_their_order_and_their_bytes(
    host: HostProcess, content: bytes
) -> None:
    with slow(host) as wire:
        wire.send(get(0, SIZE) + b"GET /user HTTP/1.1\r\nHost: t\r\n\r\n" + get(7, 3 * MIB))
        assert wire.answer().body == content
        assert wire.answer().body == b"hello\n"
        assert wire.answer().body == content[7 : 7 + 3 * MIB]


def test_a_file_waits_for_the_answers_before_it(host: HostProcess, content: bytes) -> None:
    with slow(host) as wire:
        wire.send(b"GET /stream HTTP/1.1\r\nHost: t\r\n\r\n" + get(0, SIZE))
        assert wire.answer().body == bytes(64 * MIB)
        assert wire.answer().body == content


def test_head_has_no_body(host: HostProcess) -> None:
    with host.connect() as wire:
        wire.send(get(0, SIZE, "HEAD"))
        assert wire.answer(head_only=True).headers["content-length"] == str(SIZE)
        assert wire.request("GET", "/echo").status == 200


def test_a_size_other_than_announced_is_the_services_mistake(host: HostProcess) -> None:
    with host.connect() as wire:
        wire.send(get(0, 1000, announced=",1001"))
        assert wire.answer().status == 500


def test_the_log_counts_the_bytes_that_were_sent(host: HostProcess, log: Path) -> None:
    with host.connect() as wire:
        wire.send(get(5, 2 * MIB))
        wire.answer()
    assert f" 200 {2 * MIB} " in wait_for_line(log, '"GET /file')


def test_a_client_that_leaves_takes_nothing_with_it(host: HostProcess, log: Path) -> None:
    with host.connect() as wire:
        for reset in (True, False) * 4:
            with slow(host) as leaving:
                leaving.send(get(0, SIZE))
                leaving.read_until(b"\r\n\r\n")
                while len(leaving.buffer) < 4096:  # the body has begun
                    leaving.buffer += leaving.sock.recv(4096)
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    leaving.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wire.send(b"GET /last HTTP/1.1\r\nHost: t\r\n\r\n")
        wire.answer()
        wait_for_line(log, "/last")
        with host.connect() as another:
            assert another.request("GET", "/echo").status == 200
    host.signal(signal.SIGTERM)
    assert host.wait() == 0  # no transfer is left that the stop would wait for
    lines = [line for line in log.read_text().splitlines() if '"GET /file' in line]
    assert len(lines) == 8
    sent = [int(line.split('" 200 ')[1].split()[0]) for line in lines]
    assert all(0 < size < SIZE for size in sent)
    assert not [line for line in host.lines if "Traceback" in line]


@pytest.mark.parametrize("left", [SIZE - 10, SIZE // 2, 0])
def test_a_file_that_is_cut_short_never_becomes_a_whole_answer(
    host: HostProcess, file: Path, left: int
) -> None:
    with slow(host) as wire:
        wire.send(get(0, SIZE))
        wire.read_until(b"\r\n\r\n")
        os.truncate(file, left)
        with pytest.raises((EOFError, ConnectionResetError)):
            wire.answer()
    host.wait_for("cut short")


def test_a_client_that_takes_nothing_is_given_up_and_a_slow_one_is_not(
    file: Path, log: Path, content: bytes
) -> None:
    with hosting(file, log, write_stall_timeout=1) as host, slow(host) as wire:
        wire.send(get(0, SIZE))
        wire.read_until(b"\r\n\r\n")
        with slow(host) as lazy:
            lazy.send(get(0, SIZE).replace(b"/file", b"/lazy/file"))
            pace, turns = threading.Event(), 0
            # What the system holds for the slow client lasts for much longer than the limit.
            while turns < 30 or "/lazy/file" not in log.read_text():
                wire.buffer += wire.sock.recv(16 << 10)
                pace.wait(0.1)
                turns += 1
            assert len(lazy.rest()) < SIZE
        assert wire.answer().body == content


def test_clients_that_stop_reading_do_not_keep_others_waiting(
    host: HostProcess, content: bytes
) -> None:
    with ExitStack() as stack:
        for _ in range(64):
            stopped = stack.enter_context(slow(host))
            stopped.send(get(0, SIZE))
            stopped.read_until(b"\r\n\r\n")
        for _ in range(3):
            wire = stack.enter_context(host.connect())
            wire.send(get(0, SIZE))
            assert wire.answer().body == content


def connect_until_refused(host: HostProcess) -> None:
    while True:
        host.connect().sock.close()


def test_a_stop_lets_a_transfer_end(file: Path, log: Path, content: bytes) -> None:
    with hosting(file, log) as host, slow(host) as wire:
        wire.send(get(0, SIZE))
        wire.read_until(b"\r\n\r\n")
        host.signal(signal.SIGTERM)
        with pytest.raises(ConnectionError):
            connect_until_refused(host)
        assert wire.answer().body == content
        assert wire.rest() == b""
        assert host.wait() == 0


def test_a_stop_does_not_wait_for_ever(file: Path, log: Path) -> None:
    with hosting(file, log, graceful_timeout=1) as host, slow(host) as wire:
        wire.send(get(0, SIZE))
        wire.read_until(b"\r\n\r\n")
        host.signal(signal.SIGTERM)
        host.wait()
        with pytest.raises((EOFError, ConnectionResetError)):
            wire.answer()


def test_tls_gets_the_same_bytes_from_the_service(
    tmp_path: Path, file: Path, log: Path, content: bytes
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = {**write_pair(tmp_path, authority), "access_log": str(log)}
    with HostProcess(options, {"file": str(file)}) as host, connect(host, context) as wire:
        wire.send(get(1, MIB))
        answer = wire.answer()
        assert answer.headers["x-sent-by"] == "service"
        assert answer.body == content[1 : 1 + MIB]


def test_a_unix_socket_gets_files_too(
    tmp_path: Path, file: Path, log: Path, content: bytes
) -> None:
    path = tmp_path / "socket"
    with hosting(file, log, listen=f"unix:{path}"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        with Wire(sock) as wire:
            wire.send(get(3, 5 * MIB))
            assert wire.answer().body == content[3 : 3 + 5 * MIB]


# The thread's part by itself


def drained(sock: socket.socket, into: bytearray) -> threading.Thread:
    def drain() -> None:
        while data := sock.recv(MIB):
            into.extend(data)

    thread = threading.Thread(target=drain)
    thread.start()
    return thread


def test_a_file_system_without_mappings_is_read(
    file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> mmap.mmap:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    ours, theirs = socket.socketpair()
    received = bytearray()
    ours.setblocking(False)
    thread = drained(theirs, received)
    with file.open("rb") as opened:
        at = 11
        while at < SIZE:
            at += send_span(ours.fileno(), opened.fileno(), at, SIZE - at)
    ours.close()
    thread.join()
    theirs.close()
    assert received == content[11:]


def test_a_turn_ends_although_the_client_takes_all_at_once(file: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    received = bytearray()
    thread = drained(theirs, received)
    with file.open("rb") as opened:
        sent = send_span(ours.fileno(), opened.fileno(), 0, SIZE)
    ours.close()
    thread.join()
    theirs.close()
    assert len(received) == sent
    assert sent <= file_body.TURN + file_body.WINDOW < SIZE


def test_a_client_that_takes_nothing_costs_a_thread_a_moment_only(file: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with file.open("rb") as opened, ours, theirs:
        sent = send_span(ours.fileno(), opened.fileno(), 0, SIZE)
        assert 0 < sent < SIZE
        assert send_span(ours.fileno(), opened.fileno(), sent, SIZE - sent) == 0


def test_a_file_that_ends_early_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"x" * 1000)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with path.open("rb") as opened, ours, theirs:
        assert send_span(ours.fileno(), opened.fileno(), 0, 1001) == 1000
        with pytest.raises(CutShort):
            send_span(ours.fileno(), opened.fileno(), 1000, 1)
