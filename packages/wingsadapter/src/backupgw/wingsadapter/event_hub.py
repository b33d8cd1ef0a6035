"""The node's stream of events, in the form that Wings' clients read it: who listens, what was told.

    id: 0000018c…-3
    event: backup completed
    data: {"server_id": "…", …}

A client that comes back with Last-Event-ID is told what it missed, from the last events. One that
reads too slowly is let go, and catches up when it comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

REPLAY = 1000
BEHIND = 2000
"""Events that a client may be behind before it is let go."""
CLIENTS = 200

BACKUP_COMPLETED = "backup completed"
RESTORE_COMPLETED = "backup restore completed"
BACKUP_PROGRESS = "backup progress"
RESTORE_PROGRESS = "backup restore progress"
_PASSING = frozenset({BACKUP_PROGRESS, RESTORE_PROGRESS, "stats", "console output"})
"""Events that are worth nothing later, and would push those out that are."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event. `number` is 0 for one that is not kept."""

    number: int
    server: str
    frame: bytes


class Listening:
    """What one client is still to be told. Made and read on its event loop."""

    def __init__(self, servers: frozenset[str], missed: Sequence[Told]) -> None:
        self.servers = servers
        self.gone = False
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque(told.frame for told in missed)
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        if missed:
            self._news.set()

    def add(self, frame: bytes) -> None:
        """Tell it, from any thread."""
        with self._lock:
            if self.gone:
                return
            if len(self._waiting) >= BEHIND:
                self.gone = True
                self._waiting.clear()
            else:
                self._waiting.append(frame)
        self._ring()

    def end(self) -> None:
        """Let it go once it was told what waits."""
        self.gone = True
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._news.set)

    async def next(self, patience: float) -> bytes:
        """Return what waits, b"" when nothing came for `patience` seconds or it is let go."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), patience)
        with self._lock:
            self._news.clear()
            found = b"".join(self._waiting)
            self._waiting.clear()
        return found


class OtherEvents(Protocol):
    """Where further events come from: the Wings behind us."""

    async def follow(self, servers: Sequence[str], client: Listening) -> None:
        """Give frames (`frame`) to `client.add` until cancelled. Failures are its own to mend."""


class EventHub:
    """Tells events to those who listen. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Told] = deque(maxlen=REPLAY)
        self._clients: set[Listening] = set()
        # Ids go on growing after a restart, so that an old one says what came after it.
        self._number = time.time_ns() // 1000
        self._closed = False

    def publish(self, name: str, server: str, payload: Mapping[str, Any]) -> None:
        """Tell of an event of a server. `server_id` is added to the payload."""
        document = {"server_id": server, **payload}
        with self._lock:
            self._number += 1
            passing = name in _PASSING
            told = Told(
                0 if passing else self._number,
                server,
                frame(name, document, None if passing else self._number),
            )
            if not passing:
                self._kept.append(told)
            # In the order of their numbers: a client that comes back says which was its last.
            for client in self._clients:
                if server in client.servers:
                    client.add(told.frame)

    def join(self, servers: frozenset[str], last: str | None) -> Listening | None:
        """Return what a client listens by; None: there are too many, or this is the end.

        Args:
            last: the id of the event that it saw last.
        """
        with self._lock:
            if self._closed or len(self._clients) >= CLIENTS:
                return None
            missed: list[Told] = []
            if last is not None and last.isascii() and last.isdigit() and len(last) < 20:
                seen = int(last)
                missed = [t for t in self._kept if t.number > seen and t.server in servers]
            client = Listening(servers, missed)
            self._clients.add(client)
            return client

    def leave(self, client: Listening) -> None:
        """Tell it nothing more."""
        with self._lock:
            self._clients.discard(client)

    @property
    def clients(self) -> int:
        """How many listen."""
        return len(self._clients)

    def close(self) -> None:
        """Let everybody go."""
        with self._lock:
            self._closed = True
            clients = list(self._clients)
        for client in clients:
            client.end()


def frame(name: str, document: Mapping[str, Any], number: int | None = None) -> bytes:
    """Return an event as it is sent."""
    start = "" if number is None else f"id: {number}\n"
    text = json.dumps(document, separators=(",", ":"))
    return f"{start}event: {name}\ndata: {text}\n\n".encode()
