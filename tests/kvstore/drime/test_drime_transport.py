"""Requests to Drime, straight and through a proxy: none of them goes out twice by itself."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from backupgw.kvstore.backends import drime_requests
from backupgw.kvstore.backends.drime_calls import Calls
from backupgw.kvstore.backends.drime_entry import Entry
from backupgw.kvstore.backends.drime_proxied import Proxied
from backupgw.kvstore.backends.drime_requests import Requests
from backupgw.kvstore.backends.drime_straight import Straight
from backupgw.kvstore.backends.drime_transport import Request, Transport, onward, origin_of
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    BackendMustBeOpen,
)
from backupgw.kvstore.layers.retry_schedule import Schedule

KEY = {"Authorization": "Bearer secret"}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Step = Callable[[socket.socket, bytes], None]


class Server:
    """Takes whole requests, one step for each in order; keeps what came."""

    def __init__(self, *steps: Step) -> None:
        self._steps = [*steps]
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            with line:
                while (request := _whole(line)) is not None and self._steps:
                    self.requests.append(request)
                    try:
                        self._steps.pop(0)(line, request)
                    except ConnectionAbortedError:
                        break

    def close(self) -> None:
        self._listener.close()


def _whole(line: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            piece = line.recv(65536)
        except ConnectionResetError:  # the client has left with some of an answer unread
            return None
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (
            int(x.split(b":")[1])
            for x in head.lower().split(b"\r\n")
            if x.startswith(b"content-len")
        ),
        0,
    )
    while len(body) < length:
        body += line.recv(65536)
    return head + b"\r\n\r\n" + body


def answers(line: socket.socket, request: bytes) -> None:
    line.sendall(ANSWER)


def answers_and_leaves(line: socket.socket, request: bytes) -> None:
    line.sendall(ANSWER)
    raise ConnectionAbortedError


def leaves(line: socket.socket, request: bytes) -> None:
    raise ConnectionAbortedError


def puts_off(line: socket.socket, request: bytes) -> None:
    """Announce more than comes."""
    line.sendall(ANSWER.replace(b": 2", b": 20"))
    raise ConnectionAbortedError


@pytest.fixture(params=[Straight, Proxied], ids=["straight", "proxied"])
def made(request: pytest.FixtureRequest) -> type[Straight | Proxied]:
    return cast(type[Straight | Proxied], request.param)


@pytest.fixture
def way(made: type[Straight | Proxied]) -> Iterator[Transport]:
    way = made(KEY, idle=4, timeout=5.0)
    yield way
    way.close()


def asked(way: Transport, method: str, url: str, *pieces: bytes | bytearray) -> bytes:
    answer = way.send(Request(method, url, {}, pieces))
    assert answer.status == 200
    return answer.read_all()


def test_pieces_arrive_as_one_body(way: Transport) -> None:
    server = Server(answers, answers)
    pieces = (b"head", bytearray(b"x" * 300_000), b"end")
    for _ in range(2):
        assert asked(way, "POST", server.url, *pieces) == b"ok"
    assert [each.partition(b"\r\n\r\n")[2] for each in server.requests] == [b"".join(pieces)] * 2
    assert all(each.lower().count(b"content-length") == 1 for each in server.requests)
    server.close()


def test_the_key_and_what_is_asked_for_go_along(way: Transport) -> None:
    server = Server(answers)
    url = f"{server.url}/a%20b/c?d=e%2Ff&g=1"
    assert way.send(Request("GET", url, {"Range": "bytes=1-2"})).read_all() == b"ok"
    line, *headers = server.requests[0].lower().split(b"\r\n")
    assert line == b"get /a%20b/c?d=e%2ff&g=1 http/1.1"
    assert {b"authorization: bearer secret", b"range: bytes=1-2", b"accept: */*"} <= {*headers}
    assert b"accept-encoding: identity" in headers, "or a proxy may compress what comes"
    server.close()


def test_what_makes_something_is_sent_once_whatever_happens(way: Transport) -> None:
    """The server may have done it before it left."""
    server = Server(answers, leaves, answers)
    asked(way, "POST", server.url, b"1")
    with pytest.raises(BackendConnectionError):
        asked(way, "POST", server.url, b"2")
    assert len(server.requests) == 2
    assert asked(way, "POST", server.url, b"3") == b"ok"
    server.close()


def test_an_idle_connection_that_was_closed_is_not_used(way: Transport) -> None:
    server = Server(answers_and_leaves, answers)
    asked(way, "POST", server.url, b"1")
    threading.Event().wait(0.1)  # its end arrives
    assert asked(way, "POST", server.url, b"2") == b"ok"
    server.close()


def test_reading_is_asked_again() -> None:
    way = Straight({}, idle=4, timeout=5.0)
    server = Server(answers, leaves, answers)
    asked(way, "GET", server.url)
    assert asked(way, "GET", server.url) == b"ok"
    way.close()
    server.close()


def test_nobody_listens(way: Transport) -> None:
    with pytest.raises(BackendConnectionError):
        way.send(Request("GET", "http://127.0.0.1:9", {}))


def test_silence_ends(made: type[Straight | Proxied]) -> None:
    hold = threading.Event()

    def says_nothing(line: socket.socket, request: bytes) -> None:
        hold.wait(10)

    server, way = Server(says_nothing), made({}, idle=4, timeout=0.3)
    with pytest.raises(BackendConnectionError):
        way.send(Request("GET", server.url, {}))
    hold.set()
    way.close()
    server.close()


def test_a_body_that_breaks_off_is_no_body(way: Transport) -> None:
    server = Server(puts_off)
    answer = way.send(Request("GET", server.url, {}))
    with pytest.raises(BackendConnectionError):
        answer.read_all()
    server.close()


def test_a_body_is_read_as_one_likes(way: Transport) -> None:
    server = Server(answers, answers)
    answer, buffer = way.send(Request("GET", server.url, {})), bytearray(8)
    assert answer.read(1) + answer.read(9) + answer.read(1) == b"ok"
    answer.release()
    answer = way.send(Request("GET", server.url, {}))
    count = answer.read_into(memoryview(buffer))
    count += answer.read_into(memoryview(buffer)[count:])
    assert buffer[:count] == b"ok"
    assert answer.read_into(memoryview(buffer)) == 0
    answer.release()
    server.close()


def test_something_else_is_done_while_an_answer_comes(way: Transport) -> None:
    first, asked_for = threading.Event(), threading.Event()

    def waits(line: socket.socket, request: bytes) -> None:
        asked_for.set()
        assert first.wait(10)
        line.sendall(ANSWER)

    slow, other = Server(waits), Server(answers)
    begun = way.begin(Request("GET", slow.url, {}))
    assert asked_for.wait(10), "it is sent at once"
    assert asked(way, "POST", other.url, b"1") == b"ok"
    first.set()
    assert begun.answer().read_all() == b"ok"
    begun.drop()
    slow.close()
    other.close()


def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    way = Straight(KEY, idle=4, timeout=5.0)
    server = Server(leaves, answers)
    assert way.begin(Request("GET", server.url, {})).answer().read_all() == b"ok"
    assert [each.split(b" ")[0] for each in server.requests] == [b"GET", b"GET"]
    way.close()
    server.close()


def test_what_was_begun_for_nobody_leaves_no_answer_for_the_next(way: Transport) -> None:
    dropped, asked_for = threading.Event(), threading.Event()

    def says_no(line: socket.socket, request: bytes) -> None:
        asked_for.set()
        assert dropped.wait(10)
        with contextlib.suppress(OSError):
            line.sendall(ANSWER.replace(b"ok", b"no"))

    server = Server(says_no, answers)
    begun = way.begin(Request("GET", server.url, {}))
    assert asked_for.wait(10)
    begun.drop()
    begun.drop()
    dropped.set()
    assert asked(way, "GET", server.url) == b"ok"
    server.close()


def test_nobody_listens_to_what_is_begun(way: Transport) -> None:
    begun = way.begin(Request("GET", "http://127.0.0.1:9", {}))
    with pytest.raises(BackendConnectionError):
        begun.answer()


def test_after_the_end_nothing_is_sent(way: Transport) -> None:
    way.close()
    with pytest.raises(BackendMustBeOpen):
        way.send(Request("GET", "http://127.0.0.1:9", {}))
    with pytest.raises(BackendMustBeOpen):
        way.begin(Request("GET", "http://127.0.0.1:9", {}))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x",
        "http:///x",
        "http://[::1/x",
        "/x",
        "http://a b/x",
        "http://a\x01b/x",
        f"http://{'a' * 64}/x",
        "http://a..b/x",
        "http://127.0.0.1/\ud800",
    ],
)
def test_a_url_that_leads_nowhere(way: Transport, url: str) -> None:
    with pytest.raises(BackendError):
        way.send(Request("GET", url, {}))
    with pytest.raises(BackendError):
        way.begin(Request("GET", url, {})).answer()


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://[2001:db8::1]/x", "2001:db8::1", 443),
        ("http://[2001:db8::1]/x", "2001:db8::1", 80),
        ("http://[2001:db8::1]:81/x", "2001:db8::1", 81),
        ("https://b\u00fccher.example/x", "xn--bcher-kva.example", 443),
    ],
)
def test_the_server_of_a_url_is_the_one_that_is_connected_to(
    url: str, host: str, port: int
) -> None:
    way = Straight({}, idle=4, timeout=5.0)
    connection = way._of(origin_of(url)).dialed(5.0)
    assert (connection.host, connection.port) == (host, port)
    way.close()


def test_a_url_with_what_no_request_may_hold_is_quoted(way: Transport) -> None:
    server = Server(answers)
    assert asked(way, "GET", f"{server.url}/a b?c=\u00e4") == b"ok"
    assert server.requests[0].startswith(b"GET /a%20b?c=%C3%A4 HTTP/1.1\r\n")
    server.close()


def test_no_error_tells_of_what_is_quoted() -> None:
    server, way = Server(answers), Straight({}, idle=4, timeout=5.0)
    assert asked(way, "GET", f"{server.url}/a\x01b?signature=secret") == b"ok"
    assert server.requests[0].startswith(b"GET /a%01b?signature=secret HTTP/1.1\r\n")
    way.close()
    server.close()


def test_a_redirection_is_told_of(way: Transport) -> None:
    def redirects(line: socket.socket, request: bytes) -> None:
        line.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ../y?z=1\r\n\r\n")

    server = Server(redirects, answers)
    request = Request("GET", f"{server.url}/a/b", {"Range": "bytes=1-2"})
    answer = way.send(request)
    told = onward(request, answer)
    answer.release()
    assert told == request._replace(url=f"{server.url}/y?z=1")
    last = way.send(told)
    assert onward(told, last) is None
    last.release()
    server.close()


def test_a_redirection_that_leads_nowhere(way: Transport) -> None:
    def redirects(line: socket.socket, request: bytes) -> None:
        line.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://[::1/y\r\n\r\n")

    server = Server(redirects)
    request = Request("GET", f"{server.url}/a/b", {})
    with pytest.raises(BackendError):
        onward(request, way.send(request))
    server.close()


def test_closing_ends_what_no_thread_has_come_to() -> None:
    hold, asked_for = threading.Event(), threading.Event()

    def waits(line: socket.socket, request: bytes) -> None:
        asked_for.set()
        assert hold.wait(10)
        with contextlib.suppress(OSError):
            line.sendall(ANSWER)

    server, way = Server(waits), Proxied({}, idle=1, timeout=5.0)
    first = way.begin(Request("GET", server.url, {}))
    assert asked_for.wait(10)
    second = way.begin(Request("GET", server.url, {}))
    way.close()
    with pytest.raises(BackendMustBeOpen):
        second.answer()
    first.drop()
    hold.set()
    server.close()


def test_a_redirection_of_the_storage_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says may be as long as the file, or longer."""
    monkeypatch.setattr(drime_requests, "getproxies", dict)

    def redirects(line: socket.socket, request: bytes) -> None:
        line.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /link\r\n\r\n")

    def moved(line: socket.socket, request: bytes) -> None:
        line.sendall(
            b"HTTP/1.1 307 Temporary Redirect\r\nContent-Type: application/xml\r\n"
            b"Transfer-Encoding: chunked\r\nLocation: /elsewhere\r\n\r\n4\r\n<xml\r\n0\r\n\r\n"
        )

    server = Server(redirects, moved)
    calls = Calls("secret", server.url, 0, timeout=5.0, schedule=Schedule(attempts=1))
    entry = Entry(1, "item", 0, False, 4, 0.0, "", True)
    with pytest.raises(BackendError, match="307"):
        calls.download("item", entry, 0, None)
    assert len(server.requests) == 2
    calls.close()
    server.close()


def requests_to(url: str) -> Requests:
    return Requests("secret", url, 0, timeout=5.0, schedule=Schedule(attempts=1))


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Server(answers)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy.url)
    requests = requests_to("http://drime.example/api")
    answer = requests._send("item", Request("GET", "http://drime.example/api/x", {}))
    assert answer.read_all() == b"ok"
    assert proxy.requests[0].startswith(b"GET http://drime.example/api/x HTTP/1.1\r\n")
    assert b"bearer secret" in proxy.requests[0].lower()
    requests.close()
    proxy.close()


def test_without_one_the_kernels_own_http_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drime_requests, "getproxies", dict)
    requests = requests_to("http://drime.example/api")
    assert isinstance(requests._ours, Straight)
    assert isinstance(requests._strangers, Straight)
    requests.close()
