"""Clients that ask ahead: for more than they have taken of the answers so far."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.http_app import PIECE
from tests.runtime.http_process import HostProcess, Wire

MIB = 1 << 20
AHEAD = 16  # requests; the host lets as many wait


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("host") / "s"


@pytest.fixture(scope="module", params=[False, True], ids=["in tasks", "at once"])
def host(request: pytest.FixtureRequest, path: Path) -> Iterator[HostProcess]:
    options = {"listen": ["127.0.0.1:0", f"unix:{path}"]}
    with HostProcess(options, {"begins_without_task": request.param}) as process:
        yield process


@pytest.fixture
def wire(host: HostProcess, path: Path) -> Iterator[Wire]:
    """A connection that holds a few answers, however many are asked for: no TCP, which grows."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    with Wire(sock) as connection:
        yield connection


def pieces(count: int) -> bytes:
    return b"".join(b"GET /piece?%02d HTTP/1.1\r\nHost: t\r\n\r\n" % n for n in range(count))


def look_elsewhere(host: HostProcess) -> None:
    """Return when the host has dealt with all that it was sent before."""
    with host.connect() as other:
        assert other.request("GET", "/echo").status == 200


def assert_answered(wire: Wire) -> None:
    assert [wire.answer().body for _ in range(AHEAD)] == [bytes([n]) * PIECE for n in range(AHEAD)]


def test_a_client_that_only_asks_does_not_fill_the_memory(host: HostProcess, wire: Wire) -> None:
    look_elsewhere(host)
    before = host.memory()
    wire.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError, ConnectionError):  # it is made to wait, or cut off
        for _ in range(150):  # for 9 MB
            wire.send(pieces(1))
            look_elsewhere(host)
    assert host.memory() - before < 3 * MIB


def test_bodies_that_are_answered_before_they_come_do_not_fill_the_memory(
    host: HostProcess, wire: Wire
) -> None:
    """Each answer is complete while the body is still read, as a refusal is."""
    look_elsewhere(host)
    before = host.memory()
    wire.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError, ConnectionError):  # it is made to wait, or cut off
        for _ in range(150):  # for 9 MB
            wire.send(b"POST /piece?00 HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n")
            look_elsewhere(host)
            wire.send(b"x")
    assert host.memory() - before < 3 * MIB


def test_a_client_that_reads_late_gets_every_answer(host: HostProcess, wire: Wire) -> None:
    """One is cut off in the middle, and those behind it have to wait."""
    for at_once in (1, AHEAD) * 2:
        asked = pieces(AHEAD)
        each = len(asked) // AHEAD * at_once
        for start in range(0, len(asked), each):
            wire.send(asked[start : start + each])
            look_elsewhere(host)
        assert_answered(wire)
    assert wire.request("GET", "/echo").status == 200


def test_a_client_whose_bodies_are_answered_early_and_that_reads_late_gets_every_answer(
    host: HostProcess, wire: Wire
) -> None:
    for number in range(AHEAD):
        wire.send(b"POST /piece?%d HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n" % number)
        look_elsewhere(host)
        wire.send(b"x")
    assert_answered(wire)
    assert wire.request("GET", "/echo").status == 200


def test_a_client_that_shut_its_side_and_reads_late_gets_every_answer(
    host: HostProcess, wire: Wire
) -> None:
    wire.send(pieces(AHEAD))
    wire.sock.shutdown(socket.SHUT_WR)
    look_elsewhere(host)
    assert_answered(wire)
    assert wire.rest() == b""


def test_what_is_wrong_with_a_later_request_is_said_after_the_answers(
    host: HostProcess, wire: Wire
) -> None:
    wire.send(pieces(AHEAD))
    look_elsewhere(host)
    wire.send(b"GET / HTTP/1.1\r\nHost : t\r\n\r\n")
    assert_answered(wire)
    rest = wire.rest()  # nothing, where it was found wrong before its turn to be answered
    assert not rest or rest.startswith(b"HTTP/1.1 400 ")
