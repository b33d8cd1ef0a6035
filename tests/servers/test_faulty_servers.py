"""The servers that fail on demand fail as they are told, and not otherwise."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest

from .double import Double, Fault, Faults, Message, Receive, Scope, Send
from .double_process import DoubleProcess
from .faulty_proxy import FaultyProxy
from .http_proxy import faulty


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was sent."""
    parts = []
    while True:
        message: Message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = b"".join(parts) or scope["raw_path"]
    headers = [(b"content-length", b"%d" % len(body)), (b"x-host", dict(scope["headers"])[b"host"])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(params=["itself", "behind a proxy"])
def double(request: pytest.FixtureRequest) -> Iterator[Double]:
    with Double(echo) as server:
        if request.param == "itself":
            yield server
        else:
            with faulty(server.url) as proxy:
                yield proxy


def ask(port: int, body: bytes = b"", path: str = "/a%2Fb?c=d") -> http.client.HTTPResponse:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    ) as connection:
        connection.request("POST" if body else "GET", path, body or None)
        with connection.getresponse() as response:
            response.body = response.read()  # type: ignore[attr-defined]
    return response


def body(response: http.client.HTTPResponse) -> bytes:
    found = response.body  # type: ignore[attr-defined]
    assert isinstance(found, bytes)
    return found


def test_all_passes_unchanged(double: Double) -> None:
    assert body(ask(double.port)) == b"/a%2Fb"
    answer = ask(double.port, b"x" * 3_000_000)
    assert body(answer) == b"x" * 3_000_000
    assert answer.headers["x-host"] == f"127.0.0.1:{double.port}"
    assert [call.status for call in double.calls] == [200, 200]
    assert {call.query for call in double.calls} == {"c=d"}


def test_refusals(double: Double) -> None:
    double.faults = Faults(rate=1, kinds=[Fault.TOO_MANY], retry_after=7)
    answer = ask(double.port, b"some")
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    double.faults = Faults(rate=1, kinds=[Fault.UNAVAILABLE], limit=1)
    assert [ask(double.port).status for _ in range(2)] == [503, 200]


@pytest.mark.parametrize("kind", [Fault.RESET, Fault.LOST])
def test_resets(double: Double, kind: Fault) -> None:
    double.faults = Faults(rate=1, kinds=[kind])
    with pytest.raises(ConnectionError):
        ask(double.port, b"some")


def test_cut_answers(double: Double) -> None:
    double.faults = Faults(rate=1, kinds=[Fault.CUT])
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(double.port, b"some")


def test_a_share_of_the_requests(double: Double) -> None:
    double.faults = Faults(rate=0.2, kinds=[Fault.UNAVAILABLE], seed=3)
    statuses = [ask(double.port).status for _ in range(100)]
    assert 10 <= statuses.count(503) <= 30
    assert double.faults.hit == statuses.count(503)


def test_killed_and_started_again() -> None:
    with Double(echo) as server:
        waiting = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        waiting.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab")
        ask(server.port)  # the other one was taken before this one
        server.kill()
        with pytest.raises(ConnectionError):
            waiting.recv(1)
        waiting.close()
        with pytest.raises(ConnectionError):
            ask(server.port)
        server.start()
        assert ask(server.port).status == 200


def test_a_line_is_long_narrow_and_breaks() -> None:
    with (
        Double(echo) as server,
        FaultyProxy(("127.0.0.1", server.port), latency=0.1, bandwidth=1e6) as line,
    ):
        start = time.monotonic()
        assert body(ask(line.port, b"x" * 300_000)) == b"x" * 300_000
        # There and back: three round trips of at least 0.1 s in all, and 0.6 s of bytes.
        assert time.monotonic() - start > 0.8
        line.latency, line.bandwidth = 0.0, None
        waiting = socket.create_connection(("127.0.0.1", line.port), timeout=20)
        waiting.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert waiting.recv(1) == b"H"
        line.stall()
        waiting.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        line.go_on()
        assert line.cut() >= 1
        with pytest.raises(ConnectionError):
            for _ in iter(partial(waiting.recv, 1000), b""):
                pass
        waiting.close()
        line.refuse()
        with pytest.raises(ConnectionError):
            ask(line.port)
        line.accept()
        assert ask(line.port).status == 200
        line.break_after = lambda: 10
        with pytest.raises(ConnectionError):
            ask(line.port)


def make_echo() -> Double:
    return Double(echo)


def asked(double: Double) -> int:
    return double.calls.count()


def test_a_double_in_a_process_of_its_own() -> None:
    with DoubleProcess(make_echo) as double:
        port = int(double.url.rpartition(":")[2])
        assert ask(port).status == 200
        double.fail(rate=1, kinds=[Fault.UNAVAILABLE])
        assert ask(port).status == 503
        double.fail()
        assert double.tell(asked) == 2
        double.kill()
        with pytest.raises(ConnectionError):
            ask(port)
        double.start()
        assert ask(port).status == 200
        with pytest.raises(RuntimeError, match="AssertionError: it runs"):
            double.start()
