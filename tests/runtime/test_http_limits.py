"""Limits of a connection: what a slow, greedy or careless client can and cannot do."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.http_process import PATIENCE, HostProcess, Wire, trickle, wait_for_line

MIB = 1 << 20
GET = b"GET /echo HTTP/1.1\r\nHost: t\r\n"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http") / "access.log"


@pytest.fixture(scope="module")
def host(log: Path) -> Iterator[HostProcess]:
    options = {
        "listen": "127.0.0.1:0",
        "max_header_bytes": 4096,
        "header_timeout": 1,
        "idle_timeout": 1.5,
        "body_stall_timeout": 1,
        "write_stall_timeout": 1,
        "drain_limit": MIB,
        "drain_timeout": 2,
        "access_log": str(log),
    }
    with HostProcess(options) as process:
        yield process


@pytest.fixture
def wire(host: HostProcess) -> Iterator[Wire]:
    with host.connect() as connection:
        yield connection


def assert_refused(wire: Wire, status: int) -> None:
    """One answer of one line, then the end."""
    answer = wire.answer()
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert answer.body.count(b"\n") == 1
    assert answer.body.endswith(b"\n")
    assert wire.rest() == b""


# Heads


def test_headers_up_to_the_limit_are_served(wire: Wire) -> None:
    value = "v" * (4096 - 200)
    assert wire.request("GET", "/echo", f"X-Long: {value}\r\n").status == 200


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X-Long: " + b"v" * 8192,
        GET + b"X-Long: " + b"v" * 8192 + b"\r\n\r\n",
        GET + b"".join(b"X-%d: v\r\n" % n for n in range(800)),
        b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\r\n" * 4096,
    ],
    ids=["endless value", "whole, one read", "many headers", "long target", "empty lines"],
)
def test_oversized_headers_are_refused_before_the_service_sees_them(
    wire: Wire, head: bytes
) -> None:
    wire.send(head)
    assert_refused(wire, 431)


def test_the_limit_holds_for_later_requests_of_a_connection(wire: Wire) -> None:
    assert wire.request("GET", "/echo").status == 200
    wire.send(GET + b"X-Long: " + b"v" * 8192)
    assert_refused(wire, 431)


def test_a_large_upload_right_behind_its_head_is_no_large_head(wire: Wire) -> None:
    body = bytes(300_000)
    head = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body)
    wire.send((head + body) * 2 + GET)
    assert [wire.answer().json()["size"] for _ in range(2)] == [300_000, 300_000]
    wire.send(b"\r\n")
    assert wire.answer().status == 200


def test_slow_headers_end_with_408(wire: Wire) -> None:
    with trickle(wire, GET * 100, 0.1):
        assert_refused(wire, 408)


def test_a_silent_connection_is_closed_without_an_answer(wire: Wire) -> None:
    assert wire.rest() == b""


def test_an_idle_connection_is_closed_without_an_answer(wire: Wire) -> None:
    assert wire.request("GET", "/echo").status == 200
    assert wire.rest() == b""


# Bodies


def test_a_stalled_upload_is_ended(wire: Wire, log: Path) -> None:
    wire.send(b"POST /stalled HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n12345")
    assert_refused(wire, 408)
    wait_for_line(log, '"POST /stalled HTTP/1.1" 408 ')


def test_a_slow_upload_that_goes_on_has_no_time_limit(wire: Wire) -> None:
    wire.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\n")
    with trickle(wire, b"123456", 0.4):
        assert wire.answer().json()["size"] == 6


def test_a_service_that_is_slow_itself_does_not_cost_the_client_its_upload(wire: Wire) -> None:
    # The window is full and the client must wait: longer than the stall limit of 1 s.
    body = bytes(4 * MIB)
    answer = wire.request("POST", "/hold", body=body)
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_window_of_a_mebibyte_reaches_the_service_at_once(wire: Wire) -> None:
    largest = wire.request("POST", "/largest", body=bytes(4 * MIB)).json()["largest"]
    assert MIB <= largest <= MIB + 256 * 1024 + 1


def test_uploads_that_nobody_reads_yet_cost_no_more_than_their_windows() -> None:
    with (
        HostProcess({"listen": "127.0.0.1:0"}, {"hold": 3600}) as host,
        contextlib.ExitStack() as stack,
    ):
        before = host.memory()
        for _ in range(8):
            wire = stack.enter_context(host.connect())
            wire.send(b"POST /hold HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\n\r\n")
            wire.sock.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                for _ in range(64):
                    wire.sock.sendall(bytes(MIB))
                pytest.fail("the client was never made to wait")
        grown = host.memory() - before
        host.process.kill()
    assert grown < 8 * (MIB + 256 * 1024) + 4 * MIB


def test_chunks_of_one_byte_do_not_widen_the_window(wire: Wire) -> None:
    wire.send(b"POST /largest HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
    wire.send(b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
    answer = wire.answer().json()
    assert answer["size"] == 100_000
    assert answer["largest"] < 65_536


# Early answers


def test_an_early_answer_leaves_the_connection_usable(wire: Wire) -> None:
    assert wire.request("POST", "/early", body=bytes(MIB - 1)).status == 403
    assert wire.request("GET", "/echo").status == 200


def test_an_early_answer_to_a_chunked_upload_leaves_the_connection_usable(wire: Wire) -> None:
    wire.send(
        b"POST /early HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    )
    assert wire.answer().status == 403
    wire.send(b"0\r\n\r\n")
    assert wire.request("GET", "/echo").json()["size"] == 0


def test_an_early_answer_to_a_huge_upload_can_be_read_and_closes(wire: Wire) -> None:
    wire.send(b"POST /early HTTP/1.1\r\nHost: t\r\nContent-Length: 999999999\r\n\r\n")
    wire.send(bytes(512 * 1024))
    answer = wire.answer()
    assert (answer.status, answer.headers["connection"]) == (403, "close")
    assert wire.rest() == b""


def test_an_endless_body_after_the_answer_is_cut_off(wire: Wire) -> None:
    wire.send(
        b"POST /early HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    )
    assert wire.answer().status == 403
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    with pytest.raises(ConnectionError):
        wire.send(chunk * 1000)


def test_a_body_that_stays_away_after_the_answer_is_not_awaited_for_ever(wire: Wire) -> None:
    wire.send(b"POST /early HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n")
    assert wire.answer().status == 403
    assert wire.rest() == b""


def test_what_follows_an_unread_body_of_another_length_is_not_a_request(wire: Wire) -> None:
    inner = b"DELETE /config HTTP/1.1\r\nHost: t\r\n\r\n"
    assert wire.request("POST", "/early", body=inner).status == 403
    assert wire.request("GET", "/echo").json()["method"] == "GET"


# Expectations


def test_a_client_is_told_to_go_on_only_when_its_body_is_wanted(wire: Wire) -> None:
    head = b"POST /%s HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    wire.send(head % b"echo")
    assert wire.answer().status == 100
    wire.send(b"hello")
    assert wire.answer().json()["size"] == 5
    wire.send(head % b"early")
    answer = wire.answer()
    assert (answer.status, answer.headers["connection"]) == (403, "close")


# Endings


def test_a_client_that_has_shut_its_side_still_gets_its_answer(wire: Wire) -> None:
    wire.send(b"POST /hold HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello")
    wire.sock.shutdown(socket.SHUT_WR)
    assert wire.answer().json()["size"] == 5
    assert wire.rest() == b""


def test_an_upload_cut_off_by_the_client_is_logged_as_abandoned(wire: Wire, log: Path) -> None:
    wire.send(b"POST /cut HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n12345")
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.sock.close()
    wait_for_line(log, '"POST /cut HTTP/1.1" 499 ')


def test_a_client_that_takes_nothing_of_its_download_is_given_up(wire: Wire, log: Path) -> None:
    wire.send(b"GET /x/stream HTTP/1.1\r\nHost: t\r\n\r\n")
    wait_for_line(log, '"GET /x/stream HTTP/1.1" 200 ')


def test_a_failing_service_answers_500_and_a_half_answer_is_broken_off(
    host: HostProcess, wire: Wire
) -> None:
    wire.send(b"GET /fail HTTP/1.1\r\nHost: t\r\n\r\n")
    assert_refused(wire, 500)
    with host.connect() as other:
        other.send(b"GET /half HTTP/1.1\r\nHost: t\r\n\r\n")
        with pytest.raises((EOFError, ConnectionError)):
            other.answer()


# Many connections


def served(host: HostProcess) -> bool:
    """Whether a new connection gets an answer that is no refusal."""
    with host.connect() as wire:
        try:
            return wire.request("GET", "/echo").status == 200
        except (EOFError, ConnectionError):
            return False


@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_with_too_many_connections_is_told_so_and_others_stay(workers: int) -> None:
    """Whichever workers they went to."""
    options = {"listen": "127.0.0.1:0", "max_connections_per_address": 3, "workers": workers}
    with HostProcess(options) as host, contextlib.ExitStack() as stack:
        good = [stack.enter_context(host.connect()) for _ in range(3)]
        for wire in good:
            assert wire.request("GET", "/echo").status == 200
        with host.connect() as fourth:
            assert fourth.answer().status == 503
            assert fourth.rest() == b""
        assert good[0].request("GET", "/echo").status == 200
        good[0].sock.close()
        assert good[1].request("GET", "/echo").status == 200
        end = time.monotonic() + PATIENCE
        while not served(host):  # its worker may still be about to see it close
            assert time.monotonic() < end
