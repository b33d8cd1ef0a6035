"""Several files at a time to or from a provider; one that fails does not stop the others.

What would make all the others fail, too, ends the batch: no room at the place, credentials that are
not accepted, and ten files in a row that failed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from backupgw.kvstore.backends.errors import PermissionDenied, QuotaExceeded

from .base import BaseProvider
from .crew import SMALL, Crew
from .moves import Job, Move, Result, failure_of
from .place_provider import PlaceProvider

HOPELESS = 10
"""Files in a row that failed, after which the rest is not tried."""

_LOOKED_AT = 24
"""Files that are looked at before it is decided who moves them."""


@dataclass(slots=True)
class Totals:
    """Files and bytes. `gave_up`: why the rest was not tried."""

    done: int = 0
    bytes: int = 0
    failed: int = 0
    gave_up: str = ""


@dataclass
class Batch:
    """One batch.

    Attributes:
        workers: files at a time; one for providers that may not be used by several threads.
        on_result: called with each result, by several threads but never at once.
        crew: processes that move the small files where there are many; the others follow.
    """

    provider: BaseProvider
    move: Move
    workers: int
    on_result: Callable[[Result], None]
    crew: Crew | None = None
    totals: Totals = field(default_factory=Totals)
    _under_way: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _in_a_row: int = 0
    _defect: BaseException | None = None

    @property
    def moved(self) -> int:
        """Bytes done so far, those of files under way included."""
        with self._lock:
            here = self.totals.bytes + sum(self._under_way.values())
        return here + (self.crew.under_way if self.crew is not None else 0)

    def run(self, jobs: Iterable[Job]) -> Totals:
        """Do all of it, or what comes before a `stop`. On a thread that Ctrl-C does not interrupt
        (`runtime.interrupts`): it would leave locks taken that the others wait for."""
        if self.crew is None:
            return self._by_threads(jobs)
        coming = iter(jobs)
        try:
            first = [*islice(coming, _LOOKED_AT)]
        except BaseException:
            self.crew.dismiss()
            raise
        few = len(first) < _LOOKED_AT
        if few or sum(job.size <= SMALL for job in first) * 2 < len(first):
            crew, self.crew = self.crew, None
            crew.dismiss()
            return self._by_threads(chain(first, coming))
        return self._by_threads(self._by_crew(self.crew, chain(first, coming)))

    def _by_crew(self, crew: Crew, jobs: Iterable[Job]) -> Iterator[Job]:
        """Have the small files moved; yield the others when that is done."""
        large: list[Job] = []
        crew.begin(self._hear)
        try:
            for job in jobs:
                if self._stopped.is_set():
                    break
                if job.size <= SMALL:
                    crew.put(job)
                else:
                    large.append(job)
        except BaseException:
            self.stop()
            raise
        finally:
            crew.finish()
        if not self._stopped.is_set():
            yield from large

    def _by_threads(self, jobs: Iterable[Job]) -> Totals:
        tasks = queue.Queue[Job | None](maxsize=2 * self.workers)
        crew = [
            threading.Thread(target=self._work, args=(tasks,), name=f"provider-{n}", daemon=True)
            for n in range(self.workers)
        ]
        for thread in crew:
            thread.start()
        try:
            for job in jobs:
                tasks.put(job)
                if self._stopped.is_set():
                    break
            for _ in crew:
                tasks.put(None)
            for thread in crew:
                thread.join()
        except BaseException:
            self.stop()
            self._drain(tasks, len(crew))
            for thread in crew:
                thread.join()
            raise
        if self._defect is not None:
            raise self._defect
        return self.totals

    def stop(self) -> None:
        """End it soon, such that it can be carried on. From any thread."""
        self._stopped.set()
        if self.crew is not None:
            self.crew.stop()
        if isinstance(self.provider, PlaceProvider):
            self.provider.transfers.stopping.set()

    def _drain(self, tasks: queue.Queue[Job | None], crew: int) -> None:
        while True:
            try:
                tasks.get_nowait()
            except queue.Empty:
                break
        for _ in range(crew):
            tasks.put(None)

    def _work(self, tasks: queue.Queue[Job | None]) -> None:
        while (job := tasks.get()) is not None:
            if self._stopped.is_set():
                continue  # whoever fills the queue must not wait for ever
            try:
                self._do(job)
            except BaseException as error:  # noqa: BLE001 - raised again by run
                self._defect = error
                self._stopped.set()

    def _hear(self, result: Result) -> None:
        """Be told what became of a file by a crew."""
        try:
            self._settle(result)
        except BaseException as error:  # noqa: BLE001 - raised again by run
            self._defect = error
            self.stop()

    def _do(self, job: Job) -> None:
        begun = time.monotonic()
        last = [0, 0]

        def tell(done: int, total: int) -> None:
            last[:] = done, total
            with self._lock:
                self._under_way[job.name] = done

        try:
            done = self.move(self.provider, job, tell)
            error = None if done else failure_of(self.provider, job.name)
        except Exception as raised:  # noqa: BLE001 - a provider of somebody else's
            error = raised
        seconds = time.monotonic() - begun
        self._settle(Result(job, last[1] or job.size, error, seconds))

    def _settle(self, result: Result) -> None:
        """Count a result, and tell it."""
        with self._lock:
            self._under_way.pop(result.job.name, None)
            if result.error is None:
                self.totals.done += 1
                self.totals.bytes += result.size
                self._in_a_row = 0
            elif not self._stopped.is_set():
                self.totals.failed += 1
                self._in_a_row += 1
                self._judge(result.error)
            stopped = self._stopped.is_set()
        if stopped and self.crew is not None:
            self.crew.stop()
        with self._telling:
            self.on_result(result)

    def _judge(self, error: BaseException) -> None:
        """Give up where the rest would fail likewise. Called with the lock held."""
        why = str(error) or type(error).__name__
        if isinstance(error, QuotaExceeded):
            self.totals.gave_up = f"there is no room: {why}"
        elif isinstance(error, PermissionDenied):
            self.totals.gave_up = f"it is not allowed: {why}"
        elif self._in_a_row >= HOPELESS:
            self.totals.gave_up = f"{self._in_a_row} files in a row failed, the last: {why}"
        if self.totals.gave_up:
            self._stopped.set()
