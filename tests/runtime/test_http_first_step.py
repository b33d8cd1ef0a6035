"""A service that is begun before it has a task answers as any other does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest

from backupgw.runtime.http.first_step import begin
from tests.runtime.http_process import HostProcess, Wire, wait_for_line


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http") / "access.log"


@pytest.fixture(scope="module")
def host(log: Path) -> Iterator[HostProcess]:
    options = {"listen": "127.0.0.1:0", "access_log": str(log), "graceful_timeout": 1}
    with HostProcess(options, {"begins_without_task": True, "hold": 0.2}) as process:
        yield process


@pytest.fixture
def wire(host: HostProcess) -> Iterator[Wire]:
    with host.connect() as connection:
        yield connection


def test_requests_in_one_read_are_answered_in_order(wire: Wire) -> None:
    names = ("user", "hold", "a", "early", "b")
    requests = [
        f"POST /{name} HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc" for name in names
    ]
    wire.send("".join(requests).encode())
    answers = [wire.answer() for _ in names]
    assert [answer.status for answer in answers] == [200, 200, 200, 403, 200]
    assert [answers[n].json()["raw_path"] for n in (1, 2, 4)] == ["/hold", "/a", "/b"]
    assert answers[4].json()["size"] == 3
    assert wire.request("GET", "/echo").status == 200


def test_an_upload_that_comes_in_pieces_is_taken(wire: Wire) -> None:
    wire.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nab")
    wire.send(b"cd")
    wire.send(b"ef")
    assert wire.answer().json()["size"] == 6


def test_the_last_answer_of_a_connection_is_whole(wire: Wire) -> None:
    assert wire.request("GET", "/user", "Connection: close\r\n").body == b"hello\n"
    assert wire.rest() == b""


def test_a_service_that_fails_at_once_answers_500(wire: Wire) -> None:
    assert wire.request("GET", "/fail").status == 500


def test_what_a_plain_call_can_answer_is_answered_by_it(wire: Wire, log: Path) -> None:
    for path, sent, got in (
        ("prompt", b"abc", b"cba"),
        ("prompt", b"", b""),
        ("prompt", b"wait", b"in time"),
        ("prompt", b"fail", b"in time"),
        ("user", b"abc", b"hello\n"),
        ("prompt", b"def", b"fed"),
    ):
        head = f"POST /{path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(sent)}\r\n\r\n"
        wire.send(head.encode() + sent)
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, got)
        assert ("x-prompt" in answer.headers) is (got == sent[::-1])
    wire.send(b"POST /prompt HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\na")
    wire.send(b"b")  # it did not come whole
    assert wire.answer().body in (b"in time", b"ba")
    wait_for_line(log, '"POST /prompt HTTP/1.1" 200 3 ')


def test_a_malformed_request_behind_a_good_one_ends_the_connection_after_its_answer(
    wire: Wire,
) -> None:
    wire.send(b"GET /user HTTP/1.1\r\nHost: t\r\n\r\nGARBAGE\r\n\r\n")
    assert wire.answer().body == b"hello\n"
    assert wire.rest().count(b"HTTP/1.1") <= 1


def test_what_a_request_sets_in_its_context_stays_its_own(wire: Wire) -> None:
    assert [wire.request("GET", "/memory").body for _ in range(3)] == [b"0"] * 3


def test_a_client_that_leaves_is_logged_as_gone(host: HostProcess, log: Path) -> None:
    with host.connect() as wire:
        wire.send(b"POST /gone HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nab")
        wire.sock.shutdown(1)
        assert wire.answer().status == 400
    wait_for_line(log, '"POST /gone HTTP/1.1" 400 ')


KEPT: ContextVar[str] = ContextVar("kept", default="")


def test_what_waits_becomes_a_task_with_results_errors_and_its_context() -> None:
    async def waits(future: asyncio.Future[str], said: list[str]) -> None:
        KEPT.set("mine")
        try:
            said.append(await future)
        except ValueError as error:
            said.append(str(error))
        await asyncio.sleep(0)
        assert asyncio.current_task() is not None
        said.append(KEPT.get())
        await asyncio.Event().wait()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for fails in (False, True):
            future: asyncio.Future[str] = loop.create_future()
            said: list[str] = []
            task = begin(loop, waits(future, said))
            assert task is not None
            if fails:
                future.set_exception(ValueError("broken"))
            else:
                future.set_result("done")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert said == ["broken" if fails else "done", "mine"]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert KEPT.get() == ""

    asyncio.run(main())


def test_what_does_not_wait_needs_no_task() -> None:
    async def main() -> None:
        said: list[str] = []

        async def prompt() -> None:
            said.append("done")

        assert begin(asyncio.get_running_loop(), prompt()) is None
        assert said == ["done"]

    asyncio.run(main())
