"""Server-sent events: live, replayed after a reconnection, and bounded for who reads slowly."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import uvicorn

from backupgw.runtime.events import Event, Events, EventStream, RepositoryCreated
from backupgw.runtime.events import stream as stream_module
from backupgw.runtime.events.records import Message, message


def made(number: int) -> Message:
    return message(RepositoryCreated(place="p", repository=f"r{number}"), "gw")


class Connection:
    """A client: what it was sent, with a way to hold it up."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.ended = False
        self.free = asyncio.Event()
        self.free.set()
        self.leaves = asyncio.Event()
        self.changed = asyncio.Condition()

    async def send(self, part: dict[str, Any]) -> None:
        await self.free.wait()
        async with self.changed:
            if part["type"] == "http.response.start":
                self.status = part["status"]
            else:
                self.body += part["body"]
                self.ended = not part.get("more_body", False)
            self.changed.notify_all()

    async def receive(self) -> dict[str, Any]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def until(self, true: Callable[[], bool]) -> None:
        async with self.changed, asyncio.timeout(30):
            await self.changed.wait_for(true)

    @property
    def repositories(self) -> list[str]:
        lines = [line for line in self.body.split(b"\n") if line.startswith(b'data: {"id"')]
        return [json.loads(line[6:])["data"]["repository"] for line in lines]


def told(connection: Connection, events: int) -> bool:
    return len(connection.repositories) == events


@asynccontextmanager
async def connected(
    stream: EventStream, last: str | None = None, wanted: Callable[[Event], bool] | None = None
) -> AsyncIterator[Connection]:
    connection = Connection()
    headers = [(b"last-event-id", last.encode())] if last is not None else []
    scope = {"type": "http", "headers": headers}
    more = {} if wanted is None else {"wanted": wanted}
    task = asyncio.create_task(stream.respond(scope, connection.receive, connection.send, **more))
    try:
        await connection.until(lambda: connection.body != b"")
        yield connection
    finally:
        connection.leaves.set()
        connection.free.set()
        async with asyncio.timeout(30):
            await task


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


def test_what_happens_is_seen_as_it_happens() -> None:
    async def test() -> None:
        stream = EventStream()
        stream.take([made(0)])
        async with connected(stream) as one, connected(stream) as two:
            thread = threading.Thread(target=stream.take, args=([made(1), made(2)],))
            thread.start()
            thread.join()
            for each in (one, two):
                await each.until(partial(told, each, 2))
                assert each.repositories == ["r1", "r2"], "not what was before"
                assert b"\nevent: repository.created\n" in each.body
                assert b"gap" not in each.body
        stream.take([made(3)])
        assert stream._clients == set()

    run(test)


def test_who_comes_back_is_told_what_was_missed_once() -> None:
    async def test() -> None:
        stream = EventStream()
        past = [made(number) for number in range(10)]
        stream.take(past)
        async with connected(stream, last=past[6].id) as client:
            stream.take([made(10)])
            await client.until(lambda: len(client.repositories) == 4)
            assert client.repositories == ["r7", "r8", "r9", "r10"]
            assert b"event: gap" not in client.body
        async with connected(stream, last=stream._ring[-1].id) as client:
            stream.take([made(11)])
            await client.until(lambda: client.repositories == ["r11"])

    run(test)


def test_a_gap_is_told() -> None:
    async def test() -> None:
        stream = EventStream(replay=3)
        past = [made(number) for number in range(10)]
        stream.take(past)
        async with connected(stream, last=past[2].id) as client:
            await client.until(lambda: len(client.repositories) == 3)
            assert client.repositories == ["r7", "r8", "r9"]
            assert client.body.index(b"event: gap") < client.body.index(b"r7")

    run(test)


def test_only_what_a_client_may_see() -> None:
    async def test() -> None:
        stream = EventStream()
        past = [made(number) for number in range(4)]
        stream.take(past[:2])

        def wanted(event: Event) -> bool:
            return event.data()["repository"] in ("r1", "r3")

        async with connected(stream, last=past[0].id, wanted=wanted) as client:
            stream.take(past[2:])
            await client.until(lambda: len(client.repositories) == 2)
            assert client.repositories == ["r1", "r3"]
            assert b"r2" not in client.body

    run(test)


def test_silence_is_broken_by_comments() -> None:
    async def test() -> None:
        async with connected(EventStream(keep_alive=0.01)) as client:
            await client.until(lambda: client.body.count(b"\n: \n\n") >= 3)

    run(test)


def test_who_reads_too_slowly_is_let_go_and_catches_up() -> None:
    async def test() -> None:
        stream = EventStream(replay=10_000)
        first = made(-1)
        stream.take([first])
        async with connected(stream, last=first.id) as client:
            client.free.clear()
            for number in range(stream_module.BEHIND * 3):
                stream.take([made(number)])
                kept = max(len(each.waiting) for each in stream._clients)
                assert kept <= stream_module.BEHIND + 1
            client.free.set()
            await client.until(lambda: client.ended)
            last = next(
                (
                    line[4:].decode()
                    for line in reversed(client.body.split(b"\n"))
                    if line[:4] == b"id: "
                ),
                first.id,
            )
            before = client.repositories
        async with connected(stream, last=last) as again:
            total = stream_module.BEHIND * 3
            await again.until(lambda: len(before) + len(again.repositories) == total)
            assert before + again.repositories == [f"r{number}" for number in range(total)]

    run(test)


def test_one_stream_too_many_is_refused_and_room_comes_back() -> None:
    async def test() -> None:
        stream = EventStream(clients=1)
        async with connected(stream) as one:
            assert one.status == 200
            async with connected(stream) as two:
                assert two.status == 503
        async with connected(stream) as three:
            assert three.status == 200

    run(test)


def test_a_stopping_gateway_ends_streams_after_the_last_event() -> None:
    async def test() -> None:
        stream = EventStream()
        async with connected(stream) as client:
            stream.take([made(1)])
            stream.close(1)
            await client.until(lambda: client.ended)
            assert client.repositories == ["r1"]
        async with connected(stream) as late:
            assert late.status == 503

    run(test)


def test_over_http() -> None:
    """A real server, a real client, events from another thread."""
    stream = EventStream()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await stream.respond(scope, receive, send)

    config = uvicorn.Config(app, port=0, lifespan="off", log_level="error", http="httptools")
    server = uvicorn.Server(config)
    bound = config.bind_socket()
    bound.listen()
    port = bound.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        with Events([stream]) as events:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", "/events")
            response = client.getresponse()
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert response.readline() == b"retry: 3000\n"
            events.publish(RepositoryCreated(place="p", repository="über"))
            assert response.readline() == b"\n"
            assert response.readline().startswith(b"id: ")
            assert response.readline() == b"event: repository.created\n"
            assert json.loads(response.readline()[6:])["data"]["repository"] == "über"
        assert response.read() == b"\n", "closing the events ends the stream"
        client.close()
    finally:
        server.should_exit = True
        thread.join(30)
        bound.close()
