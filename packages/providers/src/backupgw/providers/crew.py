"""Processes that move small files beside each other: one interpreter moves them one at a time.

A process is forked before the place is opened, so it has nothing of its parent's but what was
imported and made ready. It is told of files, and tells what became of each, over a socket of its
own. This is the parent's side; the other is `crew_process`.

All processes together have fewer connections than `connection_pool_size`; the one that is left is
the parent's, for listing.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from .base import BaseProvider
from .crew_process import News, serve
from .moves import Job, Move, ProviderFailed, Result
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
        handed = dict(self._provider.open().handed_on())
        with self._changed:
            for mate in self._mates:
                mate.tell(handed)
                if self._stopped:
                    mate.tell(False)
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
        """End what is under way soon, from any thread. `finish` is still to be called."""
        with self._changed:
            if self._stopped:
                return
            self._stopped = True
            self._pending.clear()
            for mate in self._mates:
                if mate.listener is not None:  # else `begin` tells it
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

    def _hear(self, mate: _Mate, news: News) -> None:
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


def crew_for(provider: PlaceProvider, move: Move, workers: int, overlap: int = 1) -> Crew | None:
    """Return processes that move files, None where threads do as well. To be called while nothing
    else runs in this process, and before the place is open.

    Args:
        workers: files at a time.
        overlap: times as many small ones, for they share connections.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    count = min(2 * processors, _MOST, workers - 1)
    # A limit on bandwidth is kept by one process: with it, none is short of processors either.
    if count < 2 or not provider.processes or provider.max_bandwidth is not None:
        return None
    if provider.opening.done:
        return None
    provider.opening.make_ready(provider.make_place)
    if threading.active_count() > 1:
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # so that no process writes to what it shares with the others
    mates: list[_Mate] = []
    threads = overlap * ((workers - 1) // count)
    for _ in range(count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            for mate in mates:
                mate.sock.close()
            ours.close()
            serve(theirs, provider, move, threads)
        theirs.close()
        mates.append(_Mate(pid, ours, threads))
    gc.unfreeze()
    return Crew(mates, provider)
