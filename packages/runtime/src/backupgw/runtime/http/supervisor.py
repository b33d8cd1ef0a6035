"""Several worker processes: started, started again when they die, stopped together.

uvicorn's own supervisor knows one configuration for all workers, restarts them on SIGHUP and
looks at them twice a second; ours serves several services, passes SIGHUP on, and waits for events
alone. Listening sockets stay open here: a connection that comes while a worker is replaced waits
in the queue of the socket, or goes to another worker (see `dealing`).
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from backupgw.runtime.between_workers import SHARED_VARIABLE, worker_ended
from backupgw.runtime.http.dealing import Hand, deal, hand_out
from backupgw.runtime.http.server import SIGNALS, Hosted
from backupgw.runtime.http.worker_process import FIRST_DELAY, Lifeline, Worker, import_early

if TYPE_CHECKING:
    from backupgw.runtime.metrics import SharedFolder

logger = logging.getLogger(__name__)

LONG_LIVED = 10.0  # seconds; a worker that dies sooner is started again with growing delay
LONGEST_DELAY = 30.0  # seconds
KILL_AFTER = 10.0  # seconds beyond graceful_timeout
DEAL_PAUSE = 0.1  # seconds in which nothing is accepted, where nobody had room for it


@dataclass
class Supervisor:
    """Keeps one process in each of `workers`."""

    workers: list[Worker]
    announce: Callable[[], None]
    status: int = 0
    _metrics: SharedFolder | None = None
    _announced: bool = False
    _interrupts: int = 0
    _reloaded: bool = False
    _stop_deadline: float | None = None
    _received: list[int] = field(default_factory=list)
    _undealt: list[tuple[socket.socket, int, Hosted]] = field(default_factory=list)
    _deal_again: float = 0.0
    _shared: str = ""
    _wakeup: tuple[socket.socket, ...] = ()
    _lifeline: Lifeline = field(default_factory=Lifeline)

    def run(self) -> int:
        """Serve until a signal; return the exit status."""
        try:
            with (
                self._lifeline,
                tempfile.TemporaryDirectory(prefix="backupgw-") as shared,
                self._signals() as wakeup,
                self._environment(shared),
            ):
                import_early(worker.hosted for worker in self.workers)
                # What stands now is the workers', too: a collector that walked over it would
                # write on every page of it, and each process would have its own.
                gc.collect()
                gc.freeze()
                self._loop(wakeup)
        finally:
            if self._metrics is not None:
                self._metrics.close()
        return self.status

    @contextlib.contextmanager
    def _environment(self, shared: str) -> Iterator[None]:
        self._shared = shared
        before = os.environ.get(SHARED_VARIABLE)
        os.environ[SHARED_VARIABLE] = shared
        if any(worker.hosted.options.metrics for worker in self.workers):
            # Imported late: only who counts anything needs it.
            from backupgw.runtime.metrics import SharedFolder

            self._metrics = SharedFolder()
        try:
            yield
        finally:
            os.environ.pop(SHARED_VARIABLE)
            if before is not None:
                os.environ[SHARED_VARIABLE] = before

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        ours, theirs = self._wakeup = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        for number in SIGNALS:
            signal.signal(number, lambda received, _: self._received.append(received))
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(wakeup)
            for number in SIGNALS:  # what has been asked to stop is not killed while it does
                signal.signal(number, signal.SIG_IGN)
            ours.close()
            theirs.close()

    def _loop(self, wakeup: socket.socket) -> None:
        while True:
            now = time.monotonic()
            for worker in self.workers:
                if worker.start_at is not None and worker.start_at <= now and not self._stopping:
                    # What it is given is what was read at the start, which may be over.
                    let_go = functools.partial(self._let_go, worker)
                    worker.start(self._lifeline, let_go, reload=self._reloaded)
            living = {w.process.sentinel: w for w in self.workers if w.process is not None}
            if self._stopping and not living:
                return
            pipes = {w.ready_pipe: w for w in self.workers if w.ready_pipe is not None}
            listeners = self._listeners(now)
            for event in wait([wakeup, *living, *pipes, *listeners], self._patience(now)):
                if event is wakeup:
                    with contextlib.suppress(BlockingIOError):
                        wakeup.recv(4096)
                elif isinstance(event, socket.socket):
                    self._deal(listeners[event], event)
                elif isinstance(event, Connection):
                    self._hear(pipes[event], event)
                elif isinstance(event, int):
                    self._ended(living[event])
            while self._received:
                self._handle(self._received.pop(0))
            if self._stop_deadline is not None and time.monotonic() >= self._stop_deadline:
                logger.error("workers did not stop in time; killing them")
                self.status = 1
                self._stop_deadline = None
                self._signal_all(signal.SIGKILL)

    def _let_go(self, begun: Worker) -> None:
        """Close what a fork has copied and is not for the worker that begins. Called in the child.

        Else sockets would stay open when the supervisor closes them or is gone: clients would wait
        in queues that nobody serves.
        """
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
        for end in self._wakeup:
            end.close()
        for connection, _, _ in self._undealt:
            connection.close()
        for worker in self.workers:
            worker.let_go(begun=worker is begun)

    def _listeners(self, now: float) -> dict[socket.socket, Hosted]:
        """Return the listeners of which connections can be dealt out now, with their services."""
        if self._stopping or now < self._deal_again:
            return {}
        return {
            sock: worker.hosted
            for worker in self.workers
            if worker.hand is not None and worker.is_ready
            for sock in worker.sockets
        }

    def _hands(self, hosted: Hosted) -> list[Hand]:
        return [
            worker.hand
            for worker in self.workers
            if worker.hosted is hosted and worker.hand is not None and worker.is_ready
        ]

    def _deal(self, hosted: Hosted, listener: socket.socket) -> None:
        sockets = next(worker.sockets for worker in self.workers if worker.hosted is hosted)
        if not deal(listener, sockets.index(listener), self._hands(hosted)):
            self._deal_again = time.monotonic() + DEAL_PAUSE

    def _deal_left(self) -> None:
        """Deal out what dead workers have left, as soon as there are living ones."""
        left, self._undealt = self._undealt, []
        for connection, number, hosted in left:
            hands = self._hands(hosted)
            if not hands and not self._stopping:
                self._undealt.append((connection, number, hosted))
                continue
            with connection:
                hand_out(connection, number, hands)

    @property
    def _stopping(self) -> bool:
        return self._interrupts > 0

    def _patience(self, now: float) -> float | None:
        """Seconds until something is due by itself; None: nothing is."""
        due = [w.start_at for w in self.workers if w.start_at is not None and not self._stopping]
        if self._stop_deadline is not None:
            due.append(self._stop_deadline)
        if now < self._deal_again:
            due.append(self._deal_again)
        return max(min(due) - now, 0.0) if due else None

    def _hear(self, worker: Worker, pipe: Connection) -> None:
        """A worker says that it is ready, or has closed its pipe by dying."""
        worker.ready_pipe = None
        self._deal_left()
        with pipe, contextlib.suppress(EOFError, ConnectionResetError):
            pipe.recv_bytes()
            if not self._announced and all(w.ready_pipe is None for w in self.workers):
                self._announced = True
                self.announce()

    def _ended(self, worker: Worker) -> None:
        process = worker.process
        assert process is not None
        process.join()
        worker.process = None
        if worker.hand is not None:
            hand, worker.hand = worker.hand, None
            self._undealt += [(*left, worker.hosted) for left in hand.close()]
            self._deal_left()
        if process.pid is not None:
            worker_ended(self._shared, process.pid)
            if self._metrics is not None:
                self._metrics.worker_ended(process.pid)
        if self._stopping:
            if process.exitcode:
                self.status = 1
            return
        if not self._announced:
            # The first start: what is wrong will be wrong again.
            logger.error("a worker of %s did not start; stopping", worker.hosted.name)
            self.status = 1
            self._stop(signal.SIGTERM)
            return
        lived = time.monotonic() - worker.born
        if lived >= LONG_LIVED:
            worker.delay = FIRST_DELAY
            worker.start_at = time.monotonic()
        else:
            worker.start_at = time.monotonic() + worker.delay
            worker.delay = min(worker.delay * 2, LONGEST_DELAY)
        logger.error(
            "worker %s of %s ended (%s); another one is started",
            process.pid,
            worker.hosted.name,
            _how(process.exitcode),
        )

    def _handle(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reloaded = True
            self._signal_all(signal.SIGHUP)
        elif not self._stopping:
            self._stop(number)
        elif number == signal.SIGINT:
            self._signal_all(signal.SIGINT)

    def _stop(self, number: int) -> None:
        self._interrupts += 1
        graceful = max(worker.hosted.options.graceful_timeout for worker in self.workers)
        self._stop_deadline = time.monotonic() + graceful + KILL_AFTER
        logger.info("%s: stopping", signal.Signals(number).name)
        # Or new clients would wait in a queue that nobody serves, instead of being refused.
        for worker in self.workers:
            for sock in worker.sockets:
                sock.close()
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        for worker in self.workers:
            worker.signal(number)


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"killed by {signal.Signals(-exitcode).name}"
    return f"exit status {exitcode}"
