"""The client of borgstore's protocol when its server, or the way there, misbehaves."""

from __future__ import annotations

import hashlib
import html
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.kvstore.scripted_server import Answerer, Reply, Request, ScriptedServer

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendURLInvalid,
    ContentMismatch,
    NameTooLong,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
)
from backupgw.kvstore.names import InvalidName
from backupgw.kvstore.registry import open_place

HELLO = Reply(headers={"X-BorgStore-Is-Directory": "true"})
OURS = Reply(headers={"X-BorgStore-Is-Directory": "true", "X-Backupgw": "1"})
LOST = Reply(cut=0)

Script = Sequence[Reply | Answerer]


def place_of(
    server: ScriptedServer, *, reconnect_tries: int = 3, reconnect_wait: float = 0
) -> Backend:
    return open_place(server.url, reconnect_tries=reconnect_tries, reconnect_wait=reconnect_wait)


PAGE = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(200, b"hello", PAGE), "a web page (status 200)"),
        (Reply(200), "an answer of no type (status 200)"),
        (Reply(400, b"no", PAGE), "a web page (status 400); is it an address with https://?"),
        (
            Reply(302, b"", {"Location": "https://who:secret@login.example/?token=secret"}),
            "a redirection to https://***@login.example/?*** (status 302)",
        ),
    ],
)
def test_something_else_that_answers_is_no_store(reply: Reply, says: str) -> None:
    with ScriptedServer([reply]) as server:
        address = server.url.rstrip("/")
        with pytest.raises(BackendError) as caught:
            place_of(server).open()
    assert str(caught.value) == f"{address} is no borgstore server: it answers with {says}"


def test_a_list_that_is_not_permitted_names_the_server() -> None:
    with ScriptedServer([Reply(403), Reply(403)]) as server, place_of(server) as place:
        with pytest.raises(PermissionDenied) as caught:
            next(place.list(""))
        assert str(caught.value) == f"{server.url.rstrip('/')}: the server does not permit it"


def ranged(value: bytes, **kind: int) -> Answerer:
    """Serve `value`, or the part of it that was asked for."""

    def answer(request: Request) -> Reply:
        wanted = request.headers.get("range", "")
        if not wanted:
            return Reply(200, value, **kind)  # type: ignore[arg-type]
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = int(last) + 1 if last else len(value)
        part = value[int(first) : end]
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(value)}"
        return Reply(206, part, {"Content-Range": span}, **kind)  # type: ignore[arg-type]

    return answer


def test_a_connection_closed_while_idle_costs_nothing() -> None:
    script: Script = [HELLO, Reply(200, b"one", close=True), Reply(200, b"two")]
    with ScriptedServer(script) as server, place_of(server, reconnect_tries=0) as place:
        assert place.load("a") == b"one"
        assert place.load("b") == b"two"


def test_a_value_that_breaks_off_is_read_on_from_there() -> None:
    value = bytes(range(256)) * 4000
    script: Script = [HELLO, ranged(value, cut=300_000), ranged(value, cut=200_000), ranged(value)]
    with ScriptedServer(script) as server, place_of(server) as place:
        assert place.load("a") == value
        asked = [request.headers.get("range") for request in server.requests[1:]]
    assert asked[0] is None
    assert [int(r.removeprefix("bytes=").split("-")[0]) > 100_000 for r in asked[1:] if r]


def test_a_value_replaced_while_it_breaks_off_is_no_mixture() -> None:
    script: Script = [HELLO, ranged(bytes(500_000), cut=200_000), ranged(b"x" * 600_000)]
    with (
        ScriptedServer(script) as server,
        place_of(server) as place,
        pytest.raises(BackendError, match="replaced") as caught,
    ):
        place.load("a")
    assert caught.value.retryable


def test_a_value_that_never_comes_whole_is_an_error() -> None:
    script: Script = [HELLO, *[ranged(bytes(500_000), cut=1000)] * 4]
    with (
        ScriptedServer(script) as server,
        place_of(server, reconnect_tries=3) as place,
        pytest.raises(BackendConnectionError),
    ):
        place.load("a")


def test_a_removal_whose_answer_was_lost_is_done() -> None:
    with ScriptedServer([HELLO, LOST, Reply(404)]) as server, place_of(server) as place:
        place.delete("a")
        assert [request.method for request in server.requests[1:]] == ["DELETE", "DELETE"]
    with ScriptedServer([HELLO, LOST, Reply(404)]) as server, place_of(server) as place:
        place.move("a", "b")


def test_a_removal_of_nothing_is_told() -> None:
    with (
        ScriptedServer([HELLO, Reply(404)]) as server,
        place_of(server) as place,
        pytest.raises(ObjectNotFound),
    ):
        place.delete("a")


def test_a_create_only_store_whose_answer_was_lost_is_done() -> None:
    value = b"mine"
    digest = "d4e6dbd8fbef4f8b2f1f5d5bc0f0fb1d"

    def hashed(request: Request) -> Reply:
        assert "cmd=hash" in request.target
        return Reply(200, hashlib.sha256(value).hexdigest().encode())

    there = Reply(200, value)  # HEAD tells its length
    script: Script = [OURS, LOST, Reply(409), there, hashed]
    with ScriptedServer(script) as server, place_of(server) as place:
        with place.open_writer("a", if_absent=True) as writer:
            writer.write(value)
        assert server.requests[1].headers["if-none-match"] == "*"
    other = Reply(200, digest.encode())
    with (
        ScriptedServer([OURS, LOST, Reply(409), there, other]) as server,
        place_of(server) as place,
    ):
        writer = place.open_writer("a", if_absent=True)
        writer.write(value)
        with pytest.raises(ObjectExists):
            writer.commit()
        writer.abort()


def test_a_store_is_repeated_whole() -> None:
    value = bytes(5 << 20)
    script: Script = [HELLO, LOST, Reply(422, b"hash"), Reply()]
    with ScriptedServer(script) as server, place_of(server) as place:
        with place.open_writer("a") as writer:
            for start in range(0, len(value), 1 << 20):
                writer.write(value[start : start + (1 << 20)])
        assert [len(request.body) for request in server.requests[1:]] == [5 << 20] * 3


def test_a_value_that_is_always_damaged_on_its_way_is_refused() -> None:
    with (
        ScriptedServer([HELLO, *[Reply(422, b"hash")] * 4]) as server,
        place_of(server) as place,
        pytest.raises(ContentMismatch, match="damaged on the way"),
    ):
        place.store("a", b"1")


def test_a_refusal_before_the_body_was_sent_is_understood() -> None:
    script: Script = [HELLO, Reply(507, b"the quota of 5 bytes is reached", early=True)]
    with (
        ScriptedServer(script) as server,
        place_of(server) as place,
        pytest.raises(QuotaExceeded, match="5 bytes"),
    ):
        place.store("a", bytes(20 << 20))


def test_a_server_that_is_gone_is_told_at_once_and_after_that_retried() -> None:
    with ScriptedServer([]) as server:
        url = server.url
    with pytest.raises(BackendConnectionError, match="refused") as caught:
        open_place(url, reconnect_wait=3600).open()  # would wait for hours if it did
    assert caught.value.retryable
    script: Script = [HELLO, *[LOST] * 4]
    with (
        ScriptedServer(script) as server,
        place_of(server, reconnect_tries=2) as place,
        pytest.raises(BackendConnectionError),
    ):
        place.info("a")


def test_closing_ends_a_wait_for_the_server() -> None:
    failed: list[BaseException] = []
    lost = threading.Event()

    def lose(_request: Request) -> Reply:
        lost.set()
        return LOST

    with ScriptedServer([HELLO, LOST, lose]) as server:
        place = place_of(server, reconnect_wait=3600)
        place.open()

        def load() -> None:
            try:
                place.load("a")
            except BackendError as error:
                failed.append(error)

        thread = threading.Thread(target=load)
        thread.start()
        assert lost.wait(30)  # the wait has begun, or is about to
        place.close()
        thread.join(30)
        assert not thread.is_alive()
    assert isinstance(failed[0], BackendMustBeOpen)


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (Reply(401), PermissionDenied, "wrong password"),
        (Reply(406, b"speak"), BackendError, "no borgstore server"),
        (Reply(400, headers={"X-Backupgw": "1"}), BackendError, "does not take the path"),
        (Reply(410), BackendDoesNotExist, "no store"),
        (Reply(502), BackendError, "502"),
    ],
)
def test_a_server_that_lets_nobody_in_is_told_when_opening(
    reply: Reply, error: type[Exception], says: str
) -> None:
    with ScriptedServer([reply]) as server, pytest.raises(error, match=says):
        place_of(server).open()


def test_a_busy_server_says_when_to_come_again() -> None:
    script: Script = [HELLO, Reply(503, headers={"Retry-After": "7"})]
    with (
        ScriptedServer(script) as server,
        place_of(server) as place,
        pytest.raises(BackendError) as caught,
    ):
        place.info("a")
    assert caught.value.retryable
    assert caught.value.retry_after == 7


def listing(*names: str) -> bytes:
    entries = [{"name": name, "size": 1, "directory": False} for name in names]
    return json.dumps(entries, indent=2).encode()


def test_a_listing_that_breaks_off_is_asked_for_again() -> None:
    names = [f"item-{number:06}" for number in range(5000)]
    whole = listing(*names)
    script: Script = [HELLO, Reply(200, whole, cut=100_000), Reply(200, whole)]
    with ScriptedServer(script) as server, place_of(server) as place:
        assert [info.name for info in place.list("x")] == names


def test_a_listing_may_be_read_as_slowly_as_one_likes() -> None:
    """The connection is not held: the server has long hung up when the last entry is read."""
    script: Script = [HELLO, Reply(200, listing("a", "b"), close=True), Reply(200, b"value")]
    with ScriptedServer(script) as server, place_of(server) as place:
        entries = place.list("x")
        assert next(entries).name == "a"
        assert place.load("x/a") == b"value"
        assert [info.name for info in entries] == ["b"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'[{"name": "a"}]',
        b'[{"size": 1}]',
        b"[1]",
        listing("a")[:-1],
        b"[nul",
    ],
)
def test_what_is_no_listing_is_not_taken_for_an_empty_one(body: bytes) -> None:
    with (
        ScriptedServer([HELLO, Reply(200, body)]) as server,
        place_of(server) as place,
        pytest.raises(BackendError),
    ):
        list(place.list("x"))


def test_names_from_a_hostile_server_do_not_get_through() -> None:
    body = listing("../up", "a/b", "", ".", "ok", "nul\0", ".backupgw-trash")
    with ScriptedServer([HELLO, Reply(200, body)]) as server, place_of(server) as place:
        assert [info.name for info in place.list("x")] == ["ok"]


def test_a_server_that_does_not_unquote_gets_no_name_that_needs_it() -> None:
    with ScriptedServer([HELLO]) as server, place_of(server) as place:
        for name in ("a?b", "a#b", "a b", "ü", "a%b"):
            with pytest.raises(InvalidName, match="unquote"):
                place.store(name, b"")
        assert len(server.requests) == 1


def said_by_borgstore(status: int, message: str) -> Reply:
    """An error as Python's http.server makes a page of it."""
    page = f"<!DOCTYPE HTML>\n<html>\n<body>\n<p>Error code: {status}</p>\n" + (
        f"<p>Message: {message}.</p>\n<p>Error code explanation: {status}</p>\n</body>\n</html>\n"
    )
    return Reply(status, page.encode(), {"Content-Type": "text/html;charset=utf-8"})


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("name must be lowercase, but got: Name", InvalidName),
        ("name is too long (max: 100): Name", NameTooLong),
        ("Unsupported &lt;thing&gt;", ValueError),
    ],
)
def test_a_name_that_borgstore_refuses_is_told_in_its_words(
    message: str, error: type[Exception]
) -> None:
    script: Script = [HELLO, said_by_borgstore(400, message)]
    with (
        ScriptedServer(script) as server,
        place_of(server) as place,
        pytest.raises(error) as caught,
    ):
        place.store("Name", b"")
    assert type(caught.value) is error
    assert str(caught.value).endswith(html.unescape(message))


FOLDER = Reply(headers={"X-BorgStore-Is-Directory": "true"})
ITEM = Reply(headers={"X-BorgStore-Is-Directory": "false", "Content-Length": "0"})


@pytest.mark.parametrize(
    ("call", "there", "found"),
    [
        (lambda place: place.load("a"), FOLDER, False),
        (lambda place: place.delete("a"), FOLDER, False),
        (lambda place: place.hash("a"), FOLDER, False),
        (lambda place: place.move("a", "b"), Reply(404), False),
        (lambda place: list(place.list("a")), ITEM, False),
        (lambda place: place.load("a"), ITEM, True),
        (lambda place: list(place.list("a")), FOLDER, True),
    ],
)
def test_a_server_that_fails_over_a_folder_has_no_such_item(
    call: Callable[[Backend], object], there: Reply, found: bool
) -> None:
    """borgstore's answers 500 for an item that is a folder, and for a list of an item."""
    script: Script = [HELLO, said_by_borgstore(500, "Internal Server Error"), there]
    with ScriptedServer(script) as server, place_of(server) as place:
        with pytest.raises(BackendError) as caught:
            call(place)
        assert isinstance(caught.value, ObjectNotFound) is not found
        assert server.requests[-1].method == "HEAD"


def test_the_end_of_an_item_that_is_shorter_is_all_of_it() -> None:
    """borgstore's server fails over `Range: bytes=-9` of 5 bytes."""
    script: Script = [
        HELLO,
        said_by_borgstore(500, "Internal Server Error"),
        *[Reply(headers={"X-BorgStore-Is-Directory": "false", "Content-Length": "5"})] * 2,
        ranged(b"value"),
    ]
    with ScriptedServer(script) as server, place_of(server) as place:
        assert place.load("a", offset=-9) == b"value"
        assert server.requests[1].headers["range"] == "bytes=-9"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://host:port/",
        "http://user@host/",
        "http://host/?query",
        "https://[::1/",
        "rest://host",
        "rest:host/path",
        "rest://user@/path",
        "rest://-oProxyCommand=x/path",
        "rest://a@b@c/path",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(BackendURLInvalid):
        open_place(url)


def test_credentials_are_in_no_message(tmp_path: Path) -> None:
    with ScriptedServer([]) as server:
        port = server.url.rpartition(":")[2].strip("/")
    url = f"http://bob:hunter2@127.0.0.1:{port}/"
    place = open_place(url)
    with pytest.raises(BackendConnectionError) as caught:
        place.open()
    assert "hunter2" not in f"{caught.value} {place!r} {caught.value.__cause__}"


def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text("#!/bin/sh\necho 'no such repository here' >&2\nexit 3\n")
    script.chmod(0o700)
    with pytest.raises(BackendConnectionError, match="no such repository here"):
        open_place("rest:///x", server_command=str(script)).open()
    with pytest.raises(BackendError, match="no such command"):
        open_place("rest:///x", server_command=str(tmp_path / "none")).open()


def test_words_for_the_far_shell_are_quoted(tmp_path: Path) -> None:
    """A path with a blank or a semicolon stays one word at the other end of ssh."""
    seen = tmp_path / "seen"
    rsh = tmp_path / "rsh"
    rsh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\n')
    rsh.chmod(0o700)
    with pytest.raises(BackendConnectionError):
        open_place("rest://me@host/a b;touch x", rsh=str(rsh)).open()
    host, *command = seen.read_text().splitlines()
    assert host == "me@host"
    assert command == ["borgstore-server-rest", "--stdio", "--backend", "'FILE:a b;touch x'"]


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        place = open_place(url, timeout=0.5, reconnect_tries=0)
        start = time.monotonic()
        with pytest.raises(BackendConnectionError, match="timed out"):
            place.open()
    assert 0.4 < time.monotonic() - start < 30


def test_a_server_that_is_not_there_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(BackendConnectionError, match=r"\d: Connection refused"):
        open_place(f"http://127.0.0.1:{port}/", reconnect_tries=0).open()
