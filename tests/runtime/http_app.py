"""The application behind the HTTP host in these tests, and `python -m` to host it.

Run with one JSON object: {"options": {…}, "argument": {…}, "services": N}.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from backupgw.runtime.http.direct_body import DIRECT_BODY, Take
from backupgw.runtime.http.exchange import ANSWER_LINES
from backupgw.runtime.http.file_body import FILE_BODY
from backupgw.runtime.http.host import Hosted, run
from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.http.reload import on_reload
from backupgw.runtime.http.stream_body import STREAM_BODY
from backupgw.runtime.threads import Threads

SEEN: ContextVar[int] = ContextVar("seen", default=0)

PIECE = 60_001
"""Bytes of an answer of `on_piece`."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class App:
    """Routes by the last part of the path."""

    def __init__(self, argument: dict[str, Any]) -> None:
        self.argument = argument
        self.begins_without_task = bool(argument.get("begins_without_task"))
        self.reloads = 0
        self.threads = Threads(8, "demo")
        on_reload(self._reload)

    def _reload(self) -> None:
        self.reloads += 1

    def answer_nowait(self, scope: Scope, body: bytes) -> bool:
        """Answer requests for `prompt` in a plain call, but for some."""
        if not scope["path"].endswith("/prompt") or body == b"wait":
            return False
        if body == b"fail":
            raise RuntimeError("disk on fire")
        scope[ANSWER_LINES](200, b"x-prompt: 1\r\n", body[::-1])
        return True

    async def on_prompt(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        while message["more_body"]:
            message = await receive()
        await respond(send, 200, b"in time")

    async def ready(self) -> bool:
        return not os.access(self.argument.get("not_ready", "/nonexistent"), os.F_OK)

    async def metrics_allowed(self, scope: Scope) -> int:
        return 200 if (b"authorization", b"Bearer good") in scope["headers"] else 401

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        name = scope["path"].rpartition("/")[2]
        await getattr(self, f"on_{name}", self.on_echo)(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup" and self.argument.get("fail_startup"):
                raise RuntimeError("the place is not there")
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                sys.stderr.write("application stopped\n")  # in one piece, beside other workers'
                sys.stderr.flush()
                return

    async def on_echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        digest = hashlib.sha256()
        size, largest, more = 0, 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body = message["body"]
            digest.update(body)
            size += len(body)
            largest = max(largest, len(body))
            more = message["more_body"]
        answer = {
            "method": scope["method"],
            "raw_path": scope["raw_path"].decode("latin-1"),
            "path": scope["path"],
            "query": scope["query_string"].decode("latin-1"),
            "client": scope["client"],
            "scheme": scope["scheme"],
            "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
            "tls": scope.get("extensions", {}).get("tls"),
            "size": size,
            "largest": largest,
            "sha256": digest.hexdigest(),
            "pid": os.getpid(),
            "reloads": self.reloads,
            "random": random.random(),
        }
        await respond(send, 200, json.dumps(answer).encode())

    async def on_early(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 403, b"no\n")

    async def on_hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the body only after a while, as a slow disk would."""
        await asyncio.sleep(self.argument.get("hold", 1.0))
        await self.on_echo(scope, receive, send)

    async def on_largest(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.on_hold(scope, receive, send)

    async def on_user(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["user"] = "alice b"
        await respond(send, 200, b"hello\n")

    async def on_fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("disk on fire")

    async def on_half(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        raise RuntimeError("disk on fire")

    async def on_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send 64 MiB without a length."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def on_file(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a part of a file; the query is `offset,size` or `offset,size,announced`."""
        offset, size, *announced = map(int, scope["query_string"].split(b","))
        by_host = FILE_BODY in scope["extensions"]
        headers = [(b"x-sent-by", b"host" if by_host else b"service")]
        headers.append((b"content-length", b"%d" % (announced or [size])[0]))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with open(self.argument["file"], "rb") as file:  # noqa: ASYNC230 - a small test
            if by_host:
                await send({"type": FILE_BODY, "fd": file.fileno(), "offset": offset, "size": size})
                return
            file.seek(offset)
            await send({"type": "http.response.body", "body": file.read(size)})

    async def on_passed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a part of a file on, read by threads; the query is `offset,size`, and `,cut` where
        what is read fails half-way or ends there."""
        asked, _, cut = scope["query_string"].partition(b",cut=")
        offset, size = map(int, asked.split(b","))
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with open(self.argument["file"], "rb") as file:  # noqa: ASYNC230 - a small test
            file.seek(offset)

            def read_into(buffer: memoryview) -> int:
                if cut and file.tell() > offset + size // 2:
                    if cut == b"end":
                        return 0
                    raise TimeoutError("the place is gone")
                return file.readinto(buffer[:100_001])

            message = {"read_into": read_into, "size": size, "threads": self.threads}
            await send({"type": STREAM_BODY, **message})

    async def on_piece(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once with so many bytes that all are the query's number."""
        number = int(scope["query_string"])
        scope[ANSWER_LINES](200, b"x-number: %d\r\n" % number, bytes([number]) * PIECE)

    async def on_direct(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the body from the socket where that is offered."""
        take: Take | None = scope["extensions"].get(DIRECT_BODY)
        body = bytearray()
        if take is not None:
            await take(body.extend, self.threads)
        more = take is None
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        found = {
            "direct": take is not None,
            "size": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        await respond(send, 200, json.dumps(found).encode())

    async def on_late(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the body from the socket only when it has long come."""
        await asyncio.sleep(self.argument.get("hold", 1.0))
        await self.on_direct(scope, receive, send)

    async def on_full(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take some of a body, and find that there is no room for it."""
        size = 0

        def consume(piece: bytes | memoryview) -> None:
            nonlocal size
            size += len(piece)
            if size > 2 << 20:
                raise MemoryError

        try:
            await scope["extensions"][DIRECT_BODY](consume, self.threads)
        except MemoryError:
            await respond(send, 507, b"full\n")

    async def on_memory(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what the requests before have left in this one's context."""
        before = SEEN.get()
        SEEN.set(before + 1)
        await respond(send, 200, b"%d" % before)

    async def on_wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin an answer and never end it."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
        await asyncio.Event().wait()


async def respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def make(argument: dict[str, Any]) -> App:
    return App(argument)


def main(text: str) -> int:
    asked = json.loads(text)
    if asked.get("argument", {}).get("thread"):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    sections = asked["options"] if isinstance(asked["options"], list) else [asked["options"]]
    return run(
        [
            Hosted(
                name=f"demo{index}" if index else "demo",
                app="tests.runtime.http_app:make",
                argument=asked.get("argument", {}),
                options=HttpOptions(**options),
            )
            for index, options in enumerate(sections)
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
