"""Bodies that threads take from the socket: whole, in order, and given up when the client is."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.http_process import Answer, HostProcess, Wire, wait_for_line

MIB = 1 << 20
SIZE = 20 * MIB + 12_345


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def host(log: Path) -> Iterator[HostProcess]:
    options = {"listen": "127.0.0.1:0", "access_log": str(log), "body_stall_timeout": 2}
    with HostProcess(options, {"begins_without_task": True}) as process:
        yield process


def head(size: int, path: str = "/direct", more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n{more}\r\n".encode()


def told(answer: Answer) -> Any:
    assert answer.status == 200
    return json.loads(answer.body)


def check(answer: Answer, body: bytes) -> None:
    found = told(answer)
    assert found["direct"]
    assert (found["size"], found["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize("size", [MIB, MIB + 1, 3 * MIB - 7, SIZE])
@pytest.mark.parametrize("with_head", [0, 1, 300_000, MIB])
def test_the_body_arrives_as_it_was_sent(
    host: HostProcess, content: bytes, size: int, with_head: int
) -> None:
    body = content[:size]
    with host.connect() as wire:
        for _ in range(2):
            wire.send(head(size) + body[:with_head])
            wire.send(body[with_head:])
            check(wire.answer(), body)
        assert told(wire.request("GET", "/echo"))["size"] == 0


def test_what_follows_the_body_at_once_is_the_next_request(
    host: HostProcess, content: bytes
) -> None:
    with host.connect() as wire:
        body = content[: 2 * MIB]
        wire.send((head(len(body)) + body) * 3 + b"GET /user HTTP/1.1\r\nHost: t\r\n\r\n")
        for _ in range(3):
            check(wire.answer(), body)
        assert wire.answer().body == b"hello\n"


def test_a_request_that_has_begun_behind_the_body_is_carried_on(
    host: HostProcess, content: bytes
) -> None:
    """The body has come, and half a head behind it, before the service asks for the body."""
    body = content[:MIB]
    with host.connect() as wire:
        wire.send(head(len(body), "/late") + body + b"GET /user HTTP/1.1\r\nHo")
        check(wire.answer(), body)
        wire.send(b"st: t\r\n\r\n")
        assert wire.answer().body == b"hello\n"


def test_a_short_body_or_one_of_unknown_length_goes_the_usual_way(host: HostProcess) -> None:
    with host.connect() as wire:
        wire.send(head(MIB - 1) + bytes(MIB - 1))
        assert not told(wire.answer())["direct"]
        wire.send(b"POST /direct HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send((b"%x\r\n%b\r\n" % (MIB, bytes(MIB))) * 3 + b"0\r\n\r\n")
        found = told(wire.answer())
        assert (found["direct"], found["size"]) == (False, 3 * MIB)


def test_a_client_that_asks_first_is_told_to_go_on(host: HostProcess, content: bytes) -> None:
    body = content[: 2 * MIB]
    with host.connect() as wire:
        wire.send(head(len(body), more="Expect: 100-continue\r\n"))
        assert wire.answer().status == 100
        wire.send(body)
        check(wire.answer(), body)


def test_a_slow_client_is_waited_for_and_one_that_stops_is_not(
    host: HostProcess, content: bytes
) -> None:
    body = content[: MIB + 300_000]
    pause = threading.Event()
    with host.connect() as wire, host.connect() as stopped:
        stopped.send(head(len(body)) + body[:-1])
        wire.send(head(len(body)) + body[: -8 * 5000])
        for start in range(len(body) - 8 * 5000, len(body), 5000):
            pause.wait(0.5)
            wire.send(body[start : start + 5000])
        check(wire.answer(), body)  # after 4 s, twice as long as a stall may last
        assert stopped.answer().status == 408
        assert stopped.rest() == b""


@pytest.mark.parametrize("how", ["shut", "reset", "close"])
def test_a_client_that_leaves_is_noticed(
    host: HostProcess, log: Path, content: bytes, how: str
) -> None:
    with host.connect() as wire:
        wire.send(head(SIZE) + content[: 5 * MIB])
        if how == "shut":
            wire.sock.shutdown(socket.SHUT_WR)
            answer = wire.answer()
            assert (answer.status, answer.body) == (400, b"The body of the request ended early.\n")
        elif how == "reset":
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Who closes may still be reading, so it is answered.
    status = 499 if how == "reset" else 400
    assert f" {status} " in wait_for_line(log, "/direct")
    with host.connect() as wire:
        assert wire.request("GET", "/echo").status == 200
    assert not [line for line in host.lines if "Traceback" in line]


def test_a_service_that_gives_up_in_the_middle_answers_and_hangs_up(
    host: HostProcess, content: bytes
) -> None:
    with host.connect() as wire:
        wire.send(head(SIZE, "/full") + content)
        answer = wire.answer()
        assert answer.status == 507
        assert answer.headers["connection"] == "close"
        assert wire.rest() == b""


def test_many_slow_clients_do_not_keep_a_fast_one_waiting(
    host: HostProcess, content: bytes
) -> None:
    wires: list[Wire] = []
    try:
        for _ in range(40):
            wire = host.connect()
            wires.append(wire)
            wire.send(head(2 * MIB) + bytes(1000))
        with host.connect() as fast:
            fast.send(head(SIZE) + content)
            check(fast.answer(), content)
        for wire in wires:
            wire.send(bytes(2 * MIB - 1000))
            check(wire.answer(), bytes(2 * MIB))
    finally:
        for wire in wires:
            wire.sock.close()
