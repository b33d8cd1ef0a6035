"""Threads that can be left behind.

A call to a place that has died may never return. It runs on a thread that nobody has to wait for:
these are daemon threads, so one that hangs for ever keeps neither its caller nor the end of the
process. concurrent.futures waits for its threads when the interpreter ends.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_TIME = 10.0
"""Seconds that a thread waits for its next call before it ends."""

_Job = tuple["Future[Any]", contextvars.Context, Callable[[], Any]]


class Crew:
    """As many threads as there are calls at a time; idle ones are used again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Run `call` on a thread, in a copy of this thread's context."""
        future: Future[T] = Future()
        job: _Job = (future, contextvars.copy_context(), call)
        if self._idle.acquire(blocking=False):
            self._jobs.put(job)
        else:
            threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True).start()
        return future

    def close(self) -> None:
        """Let the idle threads end; those at work end after their call."""
        while self._idle.acquire(blocking=False):
            self._jobs.put(None)

    def _work(self, job: _Job | None) -> None:
        while job is not None:
            future, context, call = job
            try:
                result = context.run(call)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)
                del result  # an idle thread must not keep a piece of a value
            del job, future, context, call
            self._idle.release()
            try:
                job = self._jobs.get(timeout=IDLE_TIME)
            except queue.Empty:
                if self._idle.acquire(blocking=False):
                    return
                job = self._jobs.get()  # somebody has just counted on this thread
