"""A TCP proxy before a real server: a long line, a narrow one, one that breaks.

    with FaultyProxy(("127.0.0.1", server.port), latency=0.01, bandwidth=25e6) as proxy:
        client.connect("127.0.0.1", proxy.port)
        proxy.stall(); proxy.go_on()
        proxy.cut()                       # every connection is reset; new ones are taken
        proxy.refuse(); proxy.accept()    # nobody answers; then again

For measurements it runs by itself, so that it does not share Python's lock with the client:

    python -m tests.servers.faulty_proxy HOST:PORT --latency SECONDS --bandwidth BYTES

which prints the port it listens on, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from .double import reset
from .process import START_TIMEOUT, ServerFailed

T = TypeVar("T")

PIECE = 64 * 1024
UNDER_WAY = 4 << 20
"""Bytes of a direction that may be on the line at once: more than any line here holds."""


class _Direction:
    """Bytes from one end to the other: each piece arrives when the line has carried it."""

    def __init__(
        self, proxy: FaultyProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(UNDER_WAY // PIECE)

    async def run(self) -> None:
        await asyncio.gather(self._take(), self._deliver())

    async def _take(self) -> None:
        while True:
            piece = await self._reader.read(PIECE)
            arrives = self._proxy.carried(self, len(piece)) + self._proxy.latency
            await self._line.put((arrives, piece))
            if not piece:
                return

    async def _deliver(self) -> None:
        while True:
            arrives, piece = await self._line.get()
            if (wait := arrives - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await self._proxy.moving.wait()
            if not piece:
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                return
            self._writer.write(piece)
            await self._writer.drain()


class FaultyProxy:
    """Runs in a thread of this process. A context manager.

    Args:
        target: the server's host and port.
        latency: seconds that each direction takes: half a round trip.
        bandwidth: bytes per second of each direction, for all connections together; None: no limit.
        break_after: draws, for each new connection, after how many bytes it is reset; None: never.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        latency: float = 0.0,
        bandwidth: float | None = None,
        break_after: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.target = target
        self.latency = latency
        self.bandwidth = bandwidth
        self.break_after = break_after
        self.connections = 0
        """How many were taken so far."""
        self.port = 0
        self.moving = asyncio.Event()
        self._free = {"up": 0.0, "down": 0.0}
        self._ways: dict[_Direction, str] = {}
        self._left: dict[_Direction, Callable[[int], None]] = {}
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> int:
        """Reset every connection; returns how many there were."""
        return self._call(self._cut())

    def stall(self) -> None:
        """Deliver nothing more, and tell nobody."""
        self._call(self._set(moving=False))

    def go_on(self) -> None:
        """Deliver again."""
        self._call(self._set(moving=True))

    def refuse(self) -> None:
        """Stop listening and reset every connection."""
        self._call(self._close())

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._call(self._listen())

    def carried(self, way: _Direction, size: int) -> float:
        """Return when the line will have carried `size` more bytes of a direction."""
        self._left[way](size)
        now = time.monotonic()
        if self.bandwidth is None:
            return now
        name = self._ways[way]
        self._free[name] = max(self._free[name], now) + size / self.bandwidth
        return self._free[name]

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="line", daemon=True)
        self._thread.start()
        if not ready.wait(START_TIMEOUT):
            raise ServerFailed("the proxy did not start")
        self.accept()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        assert self._loop is not None
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT)
        self._loop.close()

    def _run(self, ready: threading.Event) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self.moving.set()
        self._loop.call_soon(ready.set)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(START_TIMEOUT)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _end(self) -> None:
        await self._close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _set(self, *, moving: bool) -> None:
        if moving:
            self.moving.set()
        else:
            self.moving.clear()

    async def _cut(self) -> int:
        count = len(self._open)
        for writer in [*self._open]:
            reset(writer.transport)
        return count

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self.latency:
                await asyncio.sleep(2 * self.latency)  # the handshake's round trip
            answers, there = await asyncio.open_connection(*self.target)
            up, down = _Direction(self, reader, there), _Direction(self, answers, writer)
            self._ways.update({up: "up", down: "down"})
            counting = self._counter(writer, self.break_after())
            self._left.update({up: counting, down: counting})
            try:
                await asyncio.gather(up.run(), down.run())
            finally:
                for way in (up, down):
                    self._ways.pop(way, None)
                    self._left.pop(way, None)
        except OSError:
            reset(writer.transport)
        except asyncio.CancelledError:
            # Only `_end` cancels; asyncio would report its own callback's surprise at that.
            reset(writer.transport)
        finally:
            self._open.discard(writer)
            for end in (writer, there):
                if end is not None:
                    end.close()
                    with contextlib.suppress(OSError):
                        await end.wait_closed()

    def _counter(self, writer: asyncio.StreamWriter, end: int | None) -> Callable[[int], None]:
        seen = 0

        def count(size: int) -> None:
            nonlocal seen
            seen += size
            if end is not None and seen >= end:
                reset(writer.transport)
                raise ConnectionResetError("as it was told")

        return count


def breaking(share: float, at_most: int, seed: int = 0) -> Callable[[], int | None]:
    """Return draws for `break_after`: that share of the connections, within that many bytes."""
    draws = random.Random(seed)
    return lambda: draws.randrange(1, at_most) if draws.random() < share else None


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.faulty_proxy")
    parser.add_argument("target", help="HOST:PORT")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds each way")
    parser.add_argument("--bandwidth", type=float, help="bytes per second each way")
    chosen = parser.parse_args()
    host, _, port = chosen.target.rpartition(":")
    target = (host, int(port))
    with FaultyProxy(target, latency=chosen.latency, bandwidth=chosen.bandwidth) as proxy:
        print(proxy.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
