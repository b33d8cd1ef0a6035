"""Who is verified next: a few threads, and a fair line in front of them.

bcrypt is slow on purpose, so whoever may ask for many verifications at once decides how long all
others wait. Addresses take turns here, each with a bounded line, and clients that have proved
themselves before go first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from .throttle import Throttled

T = TypeVar("T")

RETRY_AFTER = 1.0
"""Seconds that a client is told to wait when the line is full."""


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    call: Callable[[], T]
    admit: Callable[[], None]
    future: asyncio.Future[T]


class Turns(Generic[T]):
    """Runs calls on an executor, fairly. Belongs to one event loop.

    Args:
        at_once: calls that run at the same time.
        per_address: calls of one address that may wait.
        in_all: calls that may wait, those of proven clients not counted.
    """

    def __init__(
        self, executor: Executor, *, at_once: int, per_address: int = 64, in_all: int = 1024
    ) -> None:
        self._executor = executor
        self._free = at_once
        self._per_address = per_address
        self._in_all = in_all
        self._waiting = 0
        self._first: deque[_Job[T]] = deque()
        self._lines: OrderedDict[str, deque[_Job[T]]] = OrderedDict()

    def queue(
        self, address: str, call: Callable[[], T], admit: Callable[[], None], *, proven: bool
    ) -> asyncio.Future[T]:
        """Put `call` in line and return its result to come. Cancelling that takes it out of line.

        Args:
            admit: called when its turn has come; what it raises is the result instead.

        Raises:
            Throttled: the line is full.
        """
        job = _Job(call, admit, asyncio.get_running_loop().create_future())
        if proven:
            self._first.append(job)
        else:
            line = self._lines.get(address)
            if self._waiting >= self._in_all or (line and len(line) >= self._per_address):
                raise Throttled(RETRY_AFTER)
            if line is None:
                line = self._lines[address] = deque()
            line.append(job)
            self._waiting += 1
        self._start()
        return job.future

    def _next(self) -> _Job[T] | None:
        if self._first:
            return self._first.popleft()
        if not self._lines:
            return None
        address, line = self._lines.popitem(last=False)
        job = line.popleft()
        self._waiting -= 1
        if line:
            self._lines[address] = line  # at the end: the next turn is another address's
        return job

    def _start(self) -> None:
        while self._free and (job := self._next()) is not None:
            if job.future.done():
                continue  # whoever asked has gone
            try:
                job.admit()
            except Throttled as error:
                job.future.set_exception(error)
                continue
            self._free -= 1
            running = asyncio.get_running_loop().run_in_executor(self._executor, job.call)
            running.add_done_callback(lambda done, job=job: self._done(job, done))  # type: ignore[misc]

    def _done(self, job: _Job[T], done: asyncio.Future[T]) -> None:
        self._free += 1
        if not job.future.done():
            if done.cancelled():
                job.future.cancel()
            elif (error := done.exception()) is not None:
                job.future.set_exception(error)
            else:
                job.future.set_result(done.result())
        self._start()
