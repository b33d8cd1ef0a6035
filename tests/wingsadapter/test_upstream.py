"""What is not about backups goes to the real Wings, and comes back, as if we were not there."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.runtime.http_process import Wire
from tests.servers.process import ServerProcess
from tests.servers.tls import Certificate
from tests.servers.wings_double import PIECE, WingsDouble
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from backupgw.wingsadapter.upstream import Upstream

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wings() -> Iterator[WingsDouble]:
    with WingsDouble() as wings:
        yield wings


def start(url: str, *flags: str) -> ServerProcess:
    return ServerProcess(
        [sys.executable, "-m", "tests.wingsadapter.passing_app", url, *flags],
        ready=r"start server on (\S+)",
        directory=ROOT,
    )


@pytest.fixture(scope="module")
def gateway(wings: WingsDouble) -> Iterator[ServerProcess]:
    with start(wings.url) as process:
        yield process


@pytest.fixture
def url(gateway: ServerProcess) -> str:
    return f"http://{gateway.match[1]}"


@pytest.fixture
def wire(gateway: ServerProcess) -> Iterator[Wire]:
    host, _, port = gateway.match[1].rpartition(":")
    with Wire(socket.create_connection((host, int(port)), 60)) as wire:
        yield wire


def echoed(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    "target",
    [
        "/api/system",
        "/api/servers/x/files/contents?file=%2Fserver.properties",
        "/api//servers/../x/%2e%2e/%2F?a=b?c&d=%20+%ff",
        "/api/'\"<>^`{|}?x=[1]",
    ],
)
def test_a_target_arrives_byte_for_byte(wire: Wire, target: str) -> None:
    found = wire.request("GET", target).json()
    path, _, query = target.partition("?")
    assert (found["target"], found["query"]) == (path, query)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods_headers_and_bodies_arrive(url: str, method: str) -> None:
    headers = {"authorization": "Bearer x", "x-own": "1", "connection": "x-own, close"}
    body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
    with httpx.Client() as client:
        request = client.build_request(method, f"{url}/api/x", headers=headers, content=body)
        found = echoed(client.send(request))
    assert (found["method"], found["size"]) == (method, len(body))
    names = [name for name, _ in found["headers"]]
    arrived = dict(found["headers"])
    assert arrived["authorization"] == "Bearer x"
    assert "x-own" not in names  # the client said that it is about its connection alone
    assert arrived["host"] == arrived["x-forwarded-host"] == url.removeprefix("http://")
    assert (arrived["x-forwarded-for"], arrived["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert len(names) == len(set(names))


def test_a_proxy_in_front_of_us_is_kept_in_the_chain(url: str) -> None:
    headers = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
    arrived = dict(echoed(httpx.get(f"{url}/api/x", headers=headers))["headers"])
    assert arrived["x-forwarded-for"] == "203.0.113.9, 127.0.0.1"
    assert arrived["x-forwarded-proto"] == "https"


def test_answers_keep_their_headers_but_for_those_of_the_connection(url: str) -> None:
    answer = httpx.get(f"{url}/api/cookies")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    answer = httpx.get(f"{url}/api/hop")
    assert "x-private" not in answer.headers
    assert answer.headers["x-public"] == "1"
    assert httpx.get(f"{url}/api/elsewhere").status_code == 307  # not followed by us
    assert httpx.head(f"{url}/api/big?mib=1").headers["content-length"] == str(1 << 20)


@pytest.mark.parametrize("chunked", [True, False])
def test_bodies_stream_both_ways_in_bounded_memory(
    url: str, gateway: ServerProcess, chunked: bool
) -> None:
    size = 96 << 20
    before = memory(gateway)

    def pieces() -> Iterator[bytes]:
        for _ in range(size // len(PIECE)):
            yield PIECE

    headers = {} if chunked else {"content-length": str(size)}
    with httpx.Client(timeout=120) as client:
        found = echoed(client.post(f"{url}/api/upload", content=pieces(), headers=headers))
        assert found["size"] == size
        assert found["sha256"] == hashlib.sha256(PIECE * (size // len(PIECE))).hexdigest()
        came = 0
        with client.stream("GET", f"{url}/api/big?mib=96") as answer:
            assert answer.headers["etag"] == '"x"'
            for piece in answer.iter_raw():
                came += len(piece)
                if came < 1 << 20:
                    time.sleep(0.05)  # a client that is slow to begin
    assert came == 96 << 20
    assert memory(gateway) - before < 32 << 20


def memory(process: ServerProcess) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(each for each in status.splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_a_client_that_leaves_is_gone_for_wings_too(url: str, wings: WingsDouble) -> None:
    wings.left.clear()
    with httpx.stream("GET", f"{url}/api/endless") as answer:
        assert next(answer.iter_raw()) == b"begun"
    assert wings.left.wait(30)


def test_half_an_answer_is_no_whole_one(url: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/api/short")


def test_a_wings_that_is_away_is_told(wings: WingsDouble) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with start(f"http://127.0.0.1:{taken.getsockname()[1]}") as away:
            url = f"http://{away.match[1]}"
            answer = httpx.post(f"{url}/api/x", content=b"x" * (5 << 20), timeout=60)
            assert answer.status_code == 502
            assert "cannot be reached" in answer.json()["error"]
            with pytest.raises(InvalidStatus) as refused:
                connect(url.replace("http", "ws") + "/api/servers/x/ws").close()
            assert refused.value.response.status_code == 502


def test_a_wings_with_tls_of_its_own_is_reached(certificate: Certificate) -> None:
    with WingsDouble(certificate=certificate) as wings:
        with start(wings.url) as strict:
            assert httpx.get(f"http://{strict.match[1]}/api/x", timeout=60).status_code == 502
        with start(wings.url, "--no-verify") as process:
            url = f"http://{process.match[1]}"
            assert httpx.get(f"{url}/api/x", timeout=60).status_code == 200
            with ws(url) as console:
                console.send("hello")
                assert console.recv(60) == "hello"


def test_a_restarted_wings_is_found_again(wings: WingsDouble, url: str) -> None:
    with httpx.Client() as client:
        assert client.get(f"{url}/api/x").status_code == 200
        wings.restart()
        assert client.get(f"{url}/api/x").status_code == 200


# -- websockets


def ws(url: str, path: str = "/api/servers/x/ws", **options: Any) -> Any:
    return connect(url.replace("http", "ws") + path, open_timeout=60, **options)


def test_a_console_speaks_through_us(url: str) -> None:
    with ws(url, origin="https://panel.example.com") as console:
        assert console.response.headers["x-wings"] == "yes"
        assert console.response.headers["x-token"] == "https://panel.example.com"
        console.send("say hello")
        assert console.recv(60) == "say hello"
        console.send(b"\x00\xff" * 300_000)
        assert console.recv(60) == b"\x00\xff" * 300_000
        console.ping().wait(60)


def test_subprotocols_are_agreed_on_with_wings(url: str) -> None:
    offered = [Subprotocol("one"), Subprotocol("two")]
    with ws(url, subprotocols=offered) as console:
        assert console.subprotocol == "two"
    with ws(url) as console:
        assert console.subprotocol is None


@pytest.mark.parametrize(("code", "reason"), [(4409, "server is transferring"), (1001, "bye")])
def test_closing_codes_of_wings_arrive(url: str, code: int, reason: str) -> None:
    with ws(url) as console:
        console.send(f"close {code} {reason}")
        with pytest.raises(ConnectionClosed) as closed:
            console.recv(60)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)


def test_closing_codes_of_the_client_arrive(url: str, wings: WingsDouble) -> None:
    wings.sockets.clear()
    with ws(url) as console:
        console.close(4001, "done")
    for _ in range(600):
        if wings.sockets:
            break
        time.sleep(0.05)
    assert wings.sockets == [(4001, "done")]


def test_a_refused_console_is_refused_by_wings(url: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        ws(url, "/api/servers/x/refused").close()
    assert refused.value.response.status_code == 403


def test_many_consoles_at_once(url: str) -> None:
    with contextlib.ExitStack() as stack:
        consoles = [stack.enter_context(ws(url)) for _ in range(30)]
        for number, console in enumerate(consoles):
            console.send(str(number))
        assert [console.recv(60) for console in consoles] == [str(n) for n in range(30)]
    assert httpx.get(f"{url}/api/x").status_code == 200


def test_no_other_protocol_becomes_a_tunnel(wire: Wire) -> None:
    """h2c through a proxy would be a second way to Wings that no rule looks at."""
    wire.send(
        b"GET /api/x HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
        b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"
    )
    answer = wire.answer()
    assert answer.status == 200
    names = {name for name, _ in answer.json()["headers"]}
    assert not names & {"upgrade", "http2-settings"}
    assert b"smuggled" not in wire.rest()


def test_a_stop_ends_consoles_at_once(wings: WingsDouble) -> None:
    with start(wings.url) as process, ws(f"http://{process.match[1]}") as console:
        console.send("x")
        assert console.recv(60) == "x"
        begun = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - begun < 4  # graceful_timeout is 5
        with pytest.raises(ConnectionClosed):
            console.recv(60)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8081", "ftp://x", "http://", "http://a:b@x", "http://x/path", "http://x?y"],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no address of Wings"):
        Upstream(url)
