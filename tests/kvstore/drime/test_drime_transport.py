"""Requests to Drime over the kernel's own HTTP: as httpx's, and none of them twice by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from backupgw.kvstore.backends.drime_transport import BODY, Transport

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
        if not (piece := line.recv(65536)):
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


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(transport=Transport(idle=4, timeout=5.0)) as client:
        yield client


def test_pieces_arrive_as_one_body(client: httpx.Client) -> None:
    server = Server(answers, answers)
    pieces = (b"head", bytearray(b"x" * 300_000), b"end")
    for _ in range(2):
        request = client.build_request("POST", server.url, extensions={BODY: pieces})
        assert client.send(request).text == "ok"
    assert [each.partition(b"\r\n\r\n")[2] for each in server.requests] == [b"".join(pieces)] * 2
    assert all(each.lower().count(b"content-length") == 1 for each in server.requests)
    server.close()


def test_what_makes_something_is_sent_once_whatever_happens(client: httpx.Client) -> None:
    """The server may have done it before it left."""
    server = Server(answers, leaves, answers)
    client.post(server.url, content=b"1")
    with pytest.raises(httpx.TransportError):
        client.post(server.url, content=b"2")
    assert len(server.requests) == 2
    assert client.post(server.url, content=b"3").text == "ok"
    server.close()


def test_an_idle_connection_that_was_closed_is_not_used(client: httpx.Client) -> None:
    server = Server(answers_and_leaves, answers)
    client.post(server.url, content=b"1")
    threading.Event().wait(0.1)  # its end arrives
    assert client.post(server.url, content=b"2").text == "ok"
    server.close()


def test_reading_is_asked_again(client: httpx.Client) -> None:
    server = Server(answers, leaves, answers)
    client.get(server.url)
    assert client.get(server.url).text == "ok"
    server.close()


def test_nobody_listens(client: httpx.Client) -> None:
    with pytest.raises(httpx.ConnectError):
        client.get("http://127.0.0.1:9")


def test_silence_ends() -> None:
    hold = threading.Event()

    def says_nothing(line: socket.socket, request: bytes) -> None:
        hold.wait(10)

    server = Server(says_nothing)
    with (
        httpx.Client(transport=Transport(idle=4, timeout=0.3)) as client,
        pytest.raises(httpx.ReadTimeout),
    ):
        client.get(server.url)
    hold.set()
    server.close()


def test_a_key_stays_with_its_server(client: httpx.Client) -> None:
    other = Server(answers)

    def redirects(line: socket.socket, request: bytes) -> None:
        where = other.url.encode()
        line.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + where + b"\r\n\r\n")

    server = Server(redirects)
    key = {"Authorization": "Bearer secret"}
    assert client.get(server.url, headers=key, follow_redirects=True).text == "ok"
    assert b"secret" in server.requests[0]
    assert b"secret" not in other.requests[0]
    server.close()
    other.close()
