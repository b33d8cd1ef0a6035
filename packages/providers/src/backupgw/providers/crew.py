"""Processes that move small files beside each other: one interpreter moves them one at a time.

A process is forked before the place is opened, so it has nothing of its parent's but what was
imported and made ready, and opens the place for itself when it gets its first file, or sooner where
its parent is busy with a passphrase meanwhile. The key comes from there, in memory. It is told of
files, and tells what became of each, over a socket of its own. Where that socket ends, because the
parent was killed, it ends what is under way as Ctrl-C would, and itself.

All processes together have fewer connections than `connection_pool_size`; the one that is left is
the parent's, for listing.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from backupgw.kvstore.backends.errors import BackendError

from .base import BaseProvider
from .moves import Job, Move, ProviderFailed, Result, failure_of
from .place_provider import PlaceProvider

SMALL = 8 << 20
"""Bytes of a file up to which it is moved by a process of a crew: nothing of it is carried on."""

_MOST = 4
"""Processes."""
_AHEAD = 32
"""Files that a process is told of before it has told what became of the first of them."""
_AHEAD_BYTES = 4 << 20
"""Bytes of files that wait in a process while its threads are busy."""
_AT_ONCE = 16
"""Files told of by one message."""
_TOLD_EVERY = 0.05
"""Seconds between two messages of what became of files."""


@dataclass(frozen=True, slots=True)
class _News:
    """What a process tells.

    Attributes:
        results: the number of each file that ended, its bytes, seconds, and error with its cause.
        under_way: bytes of files that have not ended.
        calls: requests since the last time, by name.
        ended: nothing more comes.
    """

    results: list[tuple[int, int, float, BaseException | None, BaseException | None]]
    under_way: int
    calls: dict[str, int]
    ended: bool = False


@dataclass(eq=False)
class _Mate:
    """One process, as its parent sees it. What changes, changes under the crew's lock."""

    pid: int
    sock: socket.socket
    threads: int
    jobs: dict[int, Job] = field(default_factory=dict)
    size: int = 0
    under_way: int = 0
    ended: bool = False
    listener: threading.Thread | None = None

    @property
    def takes_more(self) -> bool:
        waiting = len(self.jobs) - self.threads
        return waiting < 0 or (waiting < _AHEAD and self.size < _AHEAD_BYTES)

    @property
    def hungry(self) -> bool:
        return len(self.jobs) < 2 * self.threads

    def tell(self, message: object) -> None:
        # One that has died is noticed by its listener.
        try:
            self.sock.sendall(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError:
            self.sock.close()


class Crew:
    """Processes that move files by one provider; made by `crew_for`.

    Args:
        mates: its processes.
        provider: in the parent, ready and not open.
    """

    def __init__(self, mates: list[_Mate], provider: PlaceProvider) -> None:
        self._mates = mates
        self._provider = provider
        self._on_result: Callable[[Result], None] = lambda _: None
        self._changed = threading.Condition()
        self._numbers = 0
        self._pending: list[Job] = []
        self._stopped = False

    @property
    def under_way(self) -> int:
        """Bytes of files that have not ended."""
        with self._changed:
            return sum(mate.under_way for mate in self._mates)

    def begin(self, on_result: Callable[[Result], None]) -> None:
        """Have it ready for files. The place is open here by now.

        Args:
            on_result: called with each result, by several threads at a time.
        """
        self._on_result = on_result
        handed = self._provider.handed_on()
        for mate in self._mates:
            mate.tell(handed)
            mate.listener = threading.Thread(
                target=self._listen, args=(mate,), name=f"crew-{mate.pid}", daemon=True
            )
            mate.listener.start()

    def put(self, job: Job) -> None:
        """Have a file moved; waits while all have enough to do."""
        with self._changed:
            self._pending.append(job)
            self._pass_on()
            while len(self._pending) >= _AT_ONCE and not self._stopped:
                self._changed.wait()
                self._pass_on()

    def _pass_on(self, *, all_of_it: bool = False) -> None:
        """Tell of files that wait here. Called with the lock held."""
        while self._pending and not self._stopped:
            mate = min(
                (mate for mate in self._mates if mate.takes_more and not mate.ended),
                key=lambda mate: (len(mate.jobs) - mate.threads, mate.size),
                default=None,
            )
            if mate is None:
                if all(mate.ended for mate in self._mates):
                    raise ProviderFailed("the processes that moved files have all died")
                return
            if not (all_of_it or mate.hungry or len(self._pending) >= _AT_ONCE):
                return
            told: list[tuple[int, Job]] = []
            while self._pending and mate.takes_more and len(told) < _AT_ONCE:
                job = self._pending.pop(0)
                self._numbers += 1
                mate.jobs[self._numbers] = job
                mate.size += job.size
                told.append((self._numbers, job))
            mate.tell(told)
        if self._stopped:
            self._pending.clear()
        self._changed.notify_all()

    def finish(self) -> None:
        """Wait for all of it, and for its processes to end."""
        try:
            with self._changed:
                self._pass_on(all_of_it=True)
                while not self._stopped and (
                    self._pending or any(mate.jobs for mate in self._mates)
                ):
                    self._changed.wait()
                    self._pass_on(all_of_it=True)
                for mate in self._mates:
                    mate.tell(None)
        except BaseException:
            self.stop()
            raise
        finally:
            self._join()

    def stop(self) -> None:
        """End what is under way soon. `finish` is still to be called."""
        with self._changed:
            if self._stopped:
                return
            self._stopped = True
            self._pending.clear()
            for mate in self._mates:
                mate.tell(False)
            self._changed.notify_all()

    def dismiss(self) -> None:
        """It is not needed any longer: nothing was put, or it has finished."""
        for mate in self._mates:
            mate.sock.close()
        self._join()

    def _join(self) -> None:
        for mate in self._mates:
            if mate.listener is not None:
                mate.listener.join()
        while self._mates:
            mate = self._mates.pop()
            mate.sock.close()
            os.waitpid(mate.pid, 0)

    def _listen(self, mate: _Mate) -> None:
        gone = contextlib.suppress(OSError, EOFError, pickle.UnpicklingError)
        with gone, mate.sock.makefile("rb") as stream:
            while not mate.ended:
                self._hear(mate, pickle.load(stream))  # noqa: S301 - a process of ours
        with self._changed:
            # What it had when it died is there whole or not at all: another one moves it.
            mate.ended = True
            self._pending[:0] = [] if self._stopped else mate.jobs.values()
            mate.jobs, mate.under_way = {}, 0
            self._changed.notify_all()

    def _hear(self, mate: _Mate, news: _News) -> None:
        results = []
        with self._changed:
            mate.under_way = news.under_way
            for number, size, seconds, error, cause in news.results:
                job = mate.jobs.pop(number)
                mate.size -= job.size
                if error is not None:
                    error.__cause__ = cause
                results.append(Result(job, size, error, seconds))
            self._pass_on()
        self._provider.calls.add(news.calls)
        for result in results:
            self._on_result(result)
        mate.ended = news.ended


def workers_of(provider: BaseProvider, jobs: int | None) -> int:
    """Return how many files are moved at a time.

    Args:
        jobs: how many somebody wants; None is as many as the provider has connections.
    """
    return (jobs or provider.connection_pool_size) if provider.concurrent else 1


def crew_for(provider: PlaceProvider, move: Move, workers: int) -> Crew | None:
    """Return processes that move files, None where threads do as well. To be called while nothing
    else runs in this process, and before the place is open.

    Args:
        workers: files at a time.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    count = min(processors, _MOST, (workers - 1) // 2)
    # A limit on bandwidth is kept by one process: with it, none is short of processors either.
    if count < 2 or not provider.processes or provider.max_bandwidth is not None:
        return None
    if provider.opened or threading.active_count() > 1:
        return None
    provider.make_ready()
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()
    mates: list[_Mate] = []
    threads = (workers - 1) // count
    for _ in range(count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            for mate in mates:
                mate.sock.close()
            ours.close()
            _serve(theirs, provider, move, threads)
        theirs.close()
        mates.append(_Mate(pid, ours, threads))
    gc.unfreeze()
    return Crew(mates, provider)


# -- in the process


def _serve(sock: socket.socket, provider: PlaceProvider, move: Move, threads: int) -> NoReturn:
    """Be a process of a crew, to the end of it."""
    status = 1
    try:
        # Both come to the parent as well, who ends this process in good order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        provider.transfers.share(threads)
        provider.create_missing = False
        _Work(sock, provider, move, threads).run()
        status = 0
    finally:
        os._exit(status)  # what the parent has to do at its end is not to be done here


class _Work:
    """The files of one process."""

    def __init__(
        self, sock: socket.socket, provider: PlaceProvider, move: Move, threads: int
    ) -> None:
        self._sock = sock
        self._provider = provider
        self._move = move
        self._threads = threads
        self._tasks = queue.SimpleQueue[tuple[int, Job] | None]()
        self._lock = threading.Lock()
        self._results: list[tuple[int, int, float, BaseException | None, BaseException | None]] = []
        self._under_way: dict[int, int] = {}
        self._news = threading.Event()
        self._over = threading.Event()

    def run(self) -> None:
        opening = threading.Thread(target=self._provider.open_early, name="open", daemon=True)
        if self._provider.opens_early:
            opening.start()
        with self._sock.makefile("rb") as stream:
            try:
                handed: Mapping[str, Any] = pickle.load(stream)  # noqa: S301 - its parent
            except EOFError:
                return  # it was not needed
            if self._provider.opens_early:
                opening.join()
            self._provider.take_over(handed)
            teller = threading.Thread(target=self._tell, name="tell", daemon=True)
            teller.start()
            crew = [
                threading.Thread(target=self._take, name=f"provider-{n}", daemon=True)
                for n in range(self._threads)
            ]
            for thread in crew:
                thread.start()
            while (told := self._told(stream)) is not None:
                for each in told:
                    self._tasks.put(each)
        for _ in crew:
            self._tasks.put(None)
        for thread in crew:
            thread.join()
        self._provider.close()
        self._over.set()
        self._news.set()
        teller.join()

    def _told(self, stream: Any) -> list[tuple[int, Job]] | None:
        """Return the next files, None at the end."""
        try:
            told: list[tuple[int, Job]] | bool | None = pickle.load(stream)  # noqa: S301 - as above
        except (EOFError, OSError):
            told = False
        if told is False:
            self._provider.transfers.stopping.set()
            return None
        assert not isinstance(told, bool)
        return told

    def _take(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not self._provider.transfers.stopping.is_set():
                self._do(*task)

    def _do(self, number: int, job: Job) -> None:
        begun = time.monotonic()
        last = [0, 0]

        def tell(done: int, total: int) -> None:
            last[:] = done, total
            self._under_way[number] = done

        error: BaseException | None = None
        try:
            if not self._move(self._provider, job, tell):
                error = failure_of(self._provider, job.name)
        except Exception as raised:  # noqa: BLE001 - told to the parent
            error = raised
        result = (number, last[1] or job.size, time.monotonic() - begun, *_portable(error))
        with self._lock:
            self._under_way.pop(number, None)
            self._results.append(result)
        self._news.set()

    def _tell(self) -> None:
        told = 0
        while True:
            self._news.wait(5 * _TOLD_EVERY)
            over = self._over.is_set()
            self._news.clear()
            with self._lock:
                results, self._results = self._results, []
                under_way = sum(self._under_way.copy().values())
            if results or over or under_way != told:
                told = under_way
                news = _News(results, under_way, self._provider.calls.take(), over)
                try:
                    self._sock.sendall(pickle.dumps(news, pickle.HIGHEST_PROTOCOL))
                except OSError:
                    self._provider.transfers.stopping.set()  # nobody is there any more
            if over:
                return
            self._over.wait(_TOLD_EVERY)


def _portable(
    error: BaseException | None,
) -> tuple[BaseException | None, BaseException | None]:
    """Return an error and its cause, as far as they can be told to another process."""
    if error is None:
        return None, None
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - somebody else's class may raise whatever it likes
        retryable = isinstance(error, BackendError) and error.retryable
        error = ProviderFailed(str(error) or type(error).__name__, retryable=retryable)
    cause = error.__cause__
    return error, cause if isinstance(cause, OSError) else None
