"""Malformed requests: none desynchronises a connection, each gets one clear answer.

Every hostile request is followed by another on the same connection. If the server took the
boundaries of the first one for others than the sender's, the second would be answered, or a part
of the body would be.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backupgw.runtime.http.request_head import Refused, split_target
from tests.runtime.http_process import HostProcess, Wire

AFTER = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.fixture(scope="module")
def host() -> Iterator[HostProcess]:
    with HostProcess({"listen": "127.0.0.1:0", "drain_timeout": 1}, {"hold": 0.05}) as process:
        yield process


@pytest.fixture
def wire(host: HostProcess) -> Iterator[Wire]:
    with host.connect() as connection:
        yield connection


def post(*headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = b"".join(header + b"\r\n" for header in (b"Host: t", *headers))
    return b"POST /echo HTTP/" + version + b"\r\n" + lines + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
MALFORMED = {
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"),
    "the same length twice": post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    "list of lengths": post(b"Content-Length: 5, 5", body=b"hello"),
    "signed length": post(b"Content-Length: +5", body=b"hello"),
    "negative length": post(b"Content-Length: -5", body=b"hello"),
    "hexadecimal length": post(b"Content-Length: 0x5", body=b"hello"),
    "empty length": post(b"Content-Length:", body=b"hello"),
    "overflowing length": post(b"Content-Length: 18446744073709551621", body=b"hello"),
    "length, then chunked": post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "chunked, then length": post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"),
    "chunked in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n", version=b"1.0"),
    "chunked not last": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "another coding first": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "unknown coding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "chunked twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"),
    "space before colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "folded coding": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "folded header": post(b"X: a\r\n b"),
    "bare LF in headers": post(b"X: a\nY: b"),
    "bare CR in headers": post(b"X: a\rY: b"),
    "NUL in a header": post(b"X: a\0b"),
    "control byte in a header": post(b"X: a\x01b"),
    "nameless header": post(b": b"),
    "header without colon": post(b"Content-Length 5"),
    "no host": b"GET /echo HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "bare LF after the request line": b"GET /echo HTTP/1.1\nHost: t\r\n\r\n",
    "space before the first header": b"GET /echo HTTP/1.1\r\n Host: t\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\nHost: t\r\n\r\n",
    "tab in the target": b"GET /a\tb HTTP/1.1\r\nHost: t\r\n\r\n",
    "NUL in the target": b"GET /a\0b HTTP/1.1\r\nHost: t\r\n\r\n",
    "raw byte in the target": b"GET /a\xffb HTTP/1.1\r\nHost: t\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n",
    "relative target": b"GET a/b HTTP/1.1\r\nHost: t\r\n\r\n",
    "star for GET": b"GET * HTTP/1.1\r\nHost: t\r\n\r\n",
    "other scheme": b"GET ftp://h/a HTTP/1.1\r\nHost: t\r\n\r\n",
    "CONNECT": b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
    "unknown method": b"FROB / HTTP/1.1\r\nHost: t\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: t\r\n\r\n",
    "HTTP/0.9": b"GET /echo\r\n\r\n",
    "HTTP/1.2": b"GET /echo HTTP/1.2\r\nHost: t\r\n\r\n",
    "HTTP/2.0": b"GET /echo HTTP/2.0\r\nHost: t\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": bytes.fromhex("1603010200010001fc0303") + bytes(64),
    "garbage": b"\x00\x01\x02\x03 garbage\r\n\r\n",
    "upgrade with a body": post(
        b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"
    ),
    "negative chunk": post(CHUNKED, body=b"-1\r\n\r\n"),
    "chunk size with 0x": post(CHUNKED, body=b"0x1\r\na\r\n0\r\n\r\n"),
    "overflowing chunk": post(CHUNKED, body=b"fffffffffffffffff\r\na\r\n0\r\n\r\n"),
    "space after the chunk size": post(CHUNKED, body=b"1 \r\na\r\n0\r\n\r\n"),
    "bare LF in chunks": post(CHUNKED, body=b"1\na\n0\n\n"),
    "bare LF in an extension": post(CHUNKED, body=b"1;a\nb\r\na\r\n0\r\n\r\n"),
    "chunk longer than its size": post(CHUNKED, body=b"1\r\naXX0\r\n\r\n"),
    "length as a trailer": post(CHUNKED, body=b"1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n"),
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_gets_one_400_and_nothing_after_it_is_served(
    wire: Wire, request_bytes: bytes
) -> None:
    wire.send(request_bytes + AFTER)
    answer = wire.answer()
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert answer.body.endswith(b"\n")
    assert answer.body.count(b"\n") == 1
    assert wire.rest() == b""


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_behind_a_good_one_gets_no_answer_out_of_turn(
    wire: Wire, request_bytes: bytes
) -> None:
    wire.send(b"GET /first HTTP/1.1\r\nHost: t\r\n\r\n" + request_bytes + AFTER)
    first = wire.answer()
    assert first.status == 200
    assert first.json()["path"] == "/first"
    assert b"smuggled" not in wire.rest()


def test_an_unknown_expectation_is_refused(wire: Wire) -> None:
    wire.send(post(b"Expect: the unexpected", b"Content-Length: 5", body=b"hello") + AFTER)
    assert wire.answer().status == 417
    assert wire.rest() == b""


def test_pipelined_requests_are_answered_in_their_order(wire: Wire) -> None:
    wire.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % n for n in range(10)))
    assert [wire.answer().json()["path"] for _ in range(10)] == [f"/{n}" for n in range(10)]


def test_pipelined_uploads_keep_their_bodies_apart(wire: Wire) -> None:
    bodies = [bytes([n]) * 200_000 for n in range(8)]
    for body in bodies:
        wire.send(post(b"Content-Length: %d" % len(body), body=body))
    assert [wire.answer().json()["size"] for _ in bodies] == [200_000] * 8


def test_a_client_that_pipelines_without_end_is_cut_off_after_what_was_taken(wire: Wire) -> None:
    one = b"GET /hold HTTP/1.1\r\nHost: t\r\n\r\n"
    wire.send(one * 1000)
    answers = wire.rest().count(b"HTTP/1.1 200")
    assert 1 <= answers <= 17


def test_a_trailer_does_not_become_a_header(wire: Wire) -> None:
    wire.send(post(CHUNKED, body=b"1\r\na\r\n0\r\nAuthorization: Basic x\r\n\r\n"))
    headers = wire.answer().json()["headers"]
    assert [name for name, _ in headers] == ["host", "transfer-encoding"]
    assert wire.request("GET", "/echo").status == 200


@pytest.mark.parametrize(
    "flood", [b"X: " + b"v" * 2_000_000, b"X: v\r\n" * 400_000], ids=["one", "many"]
)
def test_endless_trailers_end_the_connection(wire: Wire, flood: bytes) -> None:
    wire.send(post(CHUNKED, body=b"1\r\na\r\n0\r\n"))
    with pytest.raises((ConnectionError, EOFError, AssertionError)):  # noqa: PT012 - either may
        wire.send(flood)
        assert wire.answer().status != 200
        raise ConnectionError


def test_an_upgrade_is_answered_without_it_and_closes(wire: Wire) -> None:
    wire.send(b"GET /echo HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    wire.send(AFTER)
    assert wire.answer().json()["path"] == "/echo"
    assert b"smuggled" not in wire.rest()


def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection(wire: Wire) -> None:
    wire.send(b"GET /stream HTTP/1.0\r\n\r\n")
    answer = wire.answer()
    assert "transfer-encoding" not in answer.headers
    assert len(answer.body) == 64 << 20


def test_a_head_request_gets_no_body(wire: Wire) -> None:
    assert int(wire.request("HEAD", "/echo").headers["content-length"]) > 0
    assert wire.request("GET", "/echo").status == 200


@pytest.mark.parametrize(
    "target",
    ["/", "//a//b", "/a%2Fb%00%", "/%e4%F6/..//./%2e%2e", "/a;b=c|d'\"<>{}^`", "/" + "x" * 9000],
)
def test_a_service_sees_the_path_exactly_as_it_was_sent(wire: Wire, target: str) -> None:
    answer = wire.request("GET", target + "?q=%20&r").json()
    assert answer["raw_path"] == target
    assert answer["query"] == "q=%20&r"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a?b?c", b"/a", b"b?c"),
        (b"/?", b"/", b""),
        (b"http://h", b"/", b""),
        (b"HTTP://h:80/a%2f?x=//y", b"/a%2f", b"x=//y"),
        (b"http://h?x=/y", b"/", b"x=/y"),
        (b"https://u:p@h//a", b"//a", b""),
    ],
)
def test_forms_of_a_request_target(target: bytes, path: bytes, query: bytes) -> None:
    assert split_target(target, "GET") == (path, query)


def test_a_star_stands_for_the_whole_server() -> None:
    assert split_target(b"*", "OPTIONS") == (b"*", b"")


@pytest.mark.parametrize("target", [b"", b"a", b"http:///a", b"file:///a", b"h:1", b"/a#b", b"*"])
def test_other_targets_are_refused(target: bytes) -> None:
    with pytest.raises(Refused):
        split_target(target, "GET")
