"""A worker process: forked off the supervisor, so that what both have imported is in memory once.

A fork takes the one thread along that calls it, and what others have locked stays locked for ever.
So a supervisor that has threads (of a handler of its log, of a library) spawns its workers instead:
each is a new Python that imports everything itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.command import CommandError
from backupgw.runtime.http import reload
from backupgw.runtime.http.dealing import Hand, Line
from backupgw.runtime.http.listeners import Listener
from backupgw.runtime.http.server import SIGNALS, Hosted, serve

logger = logging.getLogger(__name__)

STARTUP_FAILED = 3
FIRST_DELAY = 0.5  # seconds
FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")


def import_early(services: Iterable[Hosted]) -> None:
    """Import what the workers of these services are going to import, before they are forked off."""
    for hosted in services:
        for module in (hosted.app.partition(":")[0], *hosted.modules):
            import_module(module)


def is_alone() -> bool:
    """Whether this process has one thread, those included that Python does not know of."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:  # not Linux: where a fork is unsafe in libraries of the system, too
        return False


class Lifeline:
    """By its end a forked worker knows that the supervisor, which holds the other, is gone.

    multiprocessing has a pipe for this of each worker, but one that every later worker holds, too.
    """

    def __init__(self) -> None:
        self.end, self._held = os.pipe()

    def let_go(self) -> None:
        """Close the supervisor's end, in a worker."""
        os.close(self._held)

    def __enter__(self) -> None:
        """Keep it open within the block."""

    def __exit__(self, *_: object) -> None:
        os.close(self._held)
        os.close(self.end)


def worker_main(
    hosted: Hosted, sockets: list[socket.socket], line: Line | None, ready: Connection, alive: int
) -> None:
    """Run in a worker process; signals are blocked until the server handles them."""
    try:

        def on_ready() -> None:
            ready.send_bytes(b"ready")
            ready.close()

        listeners = [Listener(sock) for sock in sockets]
        status = serve(hosted, listeners, on_ready, line=line, alive=alive)
    except (CommandError, BackendError, OSError) as error:
        print(f"backupgw: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the user's answer
        status = STARTUP_FAILED
    except Exception:  # a fault of ours or of a service's: its traceback is what helps
        logger.exception("a worker of %s failed", hosted.name)
        status = STARTUP_FAILED
    sys.exit(status)


def _spawned(
    hosted: Hosted, sockets: list[socket.socket], line: Line | None, ready: Connection
) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert isinstance(parent.sentinel, int)
    worker_main(hosted, sockets, line, ready, parent.sentinel)


def _forked(
    lifeline: Lifeline,
    let_go: Callable[[], None],
    hosted: Hosted,
    sockets: list[socket.socket],
    line: Line | None,
    ready: Connection,
) -> None:
    lifeline.let_go()
    let_go()
    reload.forget()
    worker_main(hosted, sockets, line, ready, lifeline.end)


@dataclass
class Worker:
    """A place for a worker process, and the process that fills it now.

    Attributes:
        sockets: listeners of its service.
        hand: where it gets connections, when it is one of several.
    """

    hosted: Hosted
    sockets: list[socket.socket]
    hand: Hand | None = None
    process: BaseProcess | None = None
    ready_pipe: Connection | None = None
    born: float = 0.0
    delay: float = FIRST_DELAY
    start_at: float | None = 0.0

    def start(
        self, lifeline: Lifeline, let_go: Callable[[], None], *, reload: bool = False
    ) -> None:
        """Start a process.

        Args:
            lifeline: tells it of the supervisor's end.
            let_go: called in a forked process, closes what was copied.
            reload: it is to read again, first of all, what it reads on SIGHUP.
        """
        context: ForkContext | SpawnContext = FORK if is_alone() else SPAWN
        self.ready_pipe, ready = context.Pipe(duplex=False)
        sockets, line = self.sockets, None
        if self.hosted.options.workers > 1:
            unix = tuple(sock.family == socket.AF_UNIX for sock in sockets)
            self.hand = Hand(context.RawValue(ctypes.c_uint64, 0), unix)
            sockets, line = [], self.hand.line
        name = f"backupgw-{self.hosted.name}"
        given = (self.hosted, sockets, line, ready)
        if isinstance(context, ForkContext):
            self.process = context.Process(
                target=_forked, args=(lifeline, let_go, *given), name=name
            )
        else:
            self.process = context.Process(target=_spawned, args=given, name=name)
        # A worker begins with signals blocked: it must not die of one that it cannot handle yet.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            ready.close()
        self.born = time.monotonic()
        self.start_at = None
        if reload:
            self.signal(signal.SIGHUP)  # waits until the process can take it

    def let_go(self, *, begun: bool) -> None:
        """Close what the supervisor has of this worker; called in a forked one.

        Args:
            begun: it is the one that begins here, and has some of it for its own.
        """
        if self.ready_pipe is not None:
            self.ready_pipe.close()
        if self.hand is not None:
            self.hand.let_go(line=not begun)
        if not begun or self.hand is not None:
            for sock in self.sockets:
                sock.close()

    @property
    def is_ready(self) -> bool:
        """Whether there is a process that answers requests."""
        return self.process is not None and self.ready_pipe is None

    def signal(self, number: int) -> None:
        """Send a signal to the process, if there is one."""
        if self.process is not None and self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


def workers_of(services: Sequence[tuple[Hosted, list[Listener]]]) -> list[Worker]:
    """Return a place for each worker that the services ask for."""
    return [
        Worker(hosted, [listener.sock for listener in listeners])
        for hosted, listeners in services
        for _ in range(hosted.options.workers)
    ]
