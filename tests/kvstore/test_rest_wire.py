"""HTTP as the client of borgstore's protocol speaks it: framing, whatever is at the other end."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator

import pytest

from backupgw.kvstore.backends.rest_dialing import TcpConnection, TlsConnection
from backupgw.kvstore.backends.rest_wire import BrokenAnswer, Response, lines_of, send

VALUE = b"value" * 100
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nX-Backupgw: 1\r\n\r\n" + VALUE
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"
    b"64;name=1\r\n" + VALUE[:100] + b"\r\n190\r\n" + VALUE[100:] + b"\r\n0\r\nTrailer: 1\r\n\r\n"
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        theirs.settimeout(30)
        yield ours, theirs


def body_of(response: Response, size: int = 70) -> bytes:
    pieces = []
    while piece := response.read(size):
        pieces.append(piece)
    return b"".join(pieces)


def answer(pair: tuple[socket.socket, socket.socket], raw: bytes, method: str = "GET") -> Response:
    """The answer when `raw` is all that ever comes."""
    ours, theirs = pair
    theirs.sendall(raw)
    theirs.shutdown(socket.SHUT_WR)
    return Response(ours, method)


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED], ids=["length", "chunks"])
@pytest.mark.parametrize("at", [1, 7])
def test_an_answer_may_come_in_any_pieces(
    pair: tuple[socket.socket, socket.socket], raw: bytes, at: int
) -> None:
    """A slow network cuts answers anywhere: in a header, in a chunk's length, between CR and LF."""
    ours, theirs = pair
    taken = threading.Semaphore(1)

    class OneAtATime:
        def recv(self, size: int) -> bytes:
            data = ours.recv(size)
            taken.release()
            return data

    def drip() -> None:
        for start in range(0, len(raw), at):
            taken.acquire()
            theirs.sendall(raw[start : start + at])

    sender = threading.Thread(target=drip)
    sender.start()
    response = Response(OneAtATime(), "GET")  # type: ignore[arg-type]
    assert body_of(response) == VALUE
    assert not response.will_close
    sender.join()


def test_notices_before_the_answer_are_passed_over(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    response = answer(pair, hints + PLAIN)
    assert (response.status, response.header("x-backupgw")) == (200, "1")
    assert body_of(response) == VALUE


@pytest.mark.parametrize(
    ("method", "head"),
    [("HEAD", b"200 OK"), ("GET", b"204 No Content"), ("GET", b"304 Not Modified")],
)
def test_answers_without_a_body_leave_the_connection_usable(
    pair: tuple[socket.socket, socket.socket], method: str, head: bytes
) -> None:
    response = answer(pair, b"HTTP/1.1 " + head + b"\r\nContent-Length: 500\r\n\r\n", method)
    assert response.read(10) == b""
    assert response.header("Content-Length") == "500"
    assert not response.will_close


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN + b"HTTP/1.1 200 OK\r\n",
        CHUNKED + b"x",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: x, Close\r\n\r\n" + VALUE,
        b"HTTP/1.0 200 OK\r\nContent-Length: 500\r\n\r\n" + VALUE,
        b"HTTP/1.1 200 OK\r\n\r\n" + VALUE,
    ],
    ids=["more", "more-after-chunks", "close", "1.0", "until-the-end"],
)
def test_a_connection_that_may_be_out_of_step_is_not_used_again(
    pair: tuple[socket.socket, socket.socket], raw: bytes
) -> None:
    """Bytes left over would be taken for the answer to the next request: another item's."""
    response = answer(pair, raw)
    assert body_of(response) == VALUE
    assert response.will_close


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5",
        b"HTTP/1.1 200 OK\r\nA: 1\r\n folded: 2",
        b"HTTP/1.1 200 OK\r\nno header",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"SSH-2.0-OpenSSH_9.2",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * (80 << 10),
    ],
)
def test_an_answer_of_two_meanings_is_refused(
    pair: tuple[socket.socket, socket.socket], head: bytes
) -> None:
    ours, theirs = pair
    sender = threading.Thread(target=theirs.sendall, args=(head + b"\r\n\r\n5\r\nvalue\r\n",))
    sender.start()
    with pytest.raises(BrokenAnswer):
        Response(ours, "GET")
    ours.close()
    sender.join()


@pytest.mark.parametrize("raw", [PLAIN, CHUNKED], ids=["length", "chunks"])
def test_a_value_that_ends_early_is_never_taken_for_whole(raw: bytes) -> None:
    for end in range(0, len(raw), 11):
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(BrokenAnswer):
            body_of(answer((ours, theirs), raw[:end]))


@pytest.mark.parametrize("line", [b"", b"-5", b"0x5", b"5 5", b"g", b"1" * 16])
def test_chunks_without_a_sensible_length_are_refused(
    pair: tuple[socket.socket, socket.socket], line: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(BrokenAnswer):
        body_of(answer(pair, head + line + b"\r\nvalue\r\n0\r\n\r\n"))


def test_a_chunk_longer_than_it_said_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(BrokenAnswer):
        body_of(answer(pair, head + b"4\r\nvalue\r\n0\r\n\r\n"))


@pytest.mark.parametrize("kind", [bytes, memoryview, io.BytesIO])
def test_a_request_is_sent_whole(
    pair: tuple[socket.socket, socket.socket], kind: type[bytes | memoryview | io.BytesIO]
) -> None:
    ours, theirs = pair
    send(ours, "POST", "/a?b", lines_of({"A": "1", "Content-Length": "500"}), kind(VALUE))
    ours.shutdown(socket.SHUT_WR)
    sent = b"".join(iter(lambda: theirs.recv(1 << 16), b""))
    assert sent == b"POST /a?b HTTP/1.1\r\nA: 1\r\nContent-Length: 500\r\n\r\n" + VALUE


def test_a_small_value_goes_out_with_its_head(pair: tuple[socket.socket, socket.socket]) -> None:
    """In two pieces, the second may wait 40 ms for the acknowledgement of the first."""
    ours, theirs = pair
    send(ours, "POST", "/a", "", VALUE)
    assert theirs.recv(1 << 16).endswith(VALUE)


@pytest.mark.parametrize(
    "headers", [{"A": "1\r\nB: 2"}, {"A\r\nB": "1"}, {"A:": "1"}, {"": "1"}, {"A": "\0"}]
)
def test_no_header_smuggles_another(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        lines_of(headers)


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\nHost: other", "/\u00fc", "/a\x7f"])
def test_no_target_smuggles_a_header(
    pair: tuple[socket.socket, socket.socket], target: str
) -> None:
    with pytest.raises(ValueError, match="path"):
        send(pair[0], "GET", target, "", None)


def test_the_end_of_an_address_is_no_port() -> None:
    for port, tcp, tls in ((None, 80, 443), (8080, 8080, 8080)):
        plain = TcpConnection("2001:db8::1", port, timeout=1)
        assert (plain.host, plain.port) == ("2001:db8::1", tcp)
        secret = TlsConnection("2001:db8::1", port, timeout=1)
        assert (secret.host, secret.port) == ("2001:db8::1", tls)
