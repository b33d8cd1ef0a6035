"""The one way from the async edge to blocking calls: a bounded pool of threads.

concurrent.futures would do, with locks, conditions and two more futures for each call: about a
tenth of what a small upload costs altogether.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Runs blocking calls beside one event loop, at most `limit` at a time; more wait in line.

    Threads are started when they are needed, and stay.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._line: SimpleQueue[_Call[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._closed = False

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `call` returns, or raise what it raises.

        When the task is cancelled, the call is waited for before CancelledError goes on: whoever
        cleans up then has the objects that it used to themselves.

        Raises:
            RuntimeError: the threads have ended.
        """
        if self._closed:
            raise RuntimeError("the threads have ended")
        waiting = _Call(asyncio.get_running_loop(), lambda: call(*args, **kwargs))
        self._unfinished += 1
        if self._unfinished > len(self._threads) < self._limit:
            self._start()
        self._line.put(waiting)
        try:
            return await waiting.result
        except asyncio.CancelledError:
            await waiting.wait()
            raise
        finally:
            self._unfinished -= 1

    def close(self) -> None:
        """Wait for running calls and end the threads; what still waits in line is cancelled.

        Called by the loop's thread.
        """
        self._closed = True
        with contextlib.suppress(Empty):
            while True:
                dropped = self._line.get_nowait()
                if dropped is not None:
                    dropped.drop()
        for _ in self._threads:
            self._line.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        _let_others_finish()
        while (waiting := self._line.get()) is not None:
            waiting.carry_out()
            del waiting  # or what it holds would live until the next one


def _let_others_finish() -> None:
    """Have the system wake this thread without interrupting the one that wakes it: that one holds
    the interpreter's lock, for which this one could do nothing but wait (sched(7), SCHED_BATCH).

    That is a quarter of a small upload's processor time with one worker, with two a little. Who has
    the processor for how long stays the same. What the thread starts is woken like it.
    """
    # AttributeError: not Linux. OSError: something (seccomp) keeps us from it.
    with contextlib.suppress(AttributeError, OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class _Call(Generic[T]):
    """One call on its way to a thread and back.

    Attributes:
        result: for whoever waits; cancelled with its task.
    """

    __slots__ = ("_call", "_done", "_ended", "_loop", "result")

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], T]) -> None:
        self._loop = loop
        self._call = call
        self._done = False
        self._ended: asyncio.Future[None] | None = None
        self.result: asyncio.Future[T] = loop.create_future()

    def carry_out(self) -> None:
        """Make the call, on this thread."""
        try:
            value = self._call()
        except StopIteration as error:
            self._back(self.result.set_exception, RuntimeError(f"{self._call} raised {error!r}"))
        except BaseException as error:  # noqa: BLE001 - the caller's to handle
            self._back(self.result.set_exception, error)
        else:
            self._back(self.result.set_result, value)

    def _back(self, tell: Callable[[Any], object], found: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who waited
            self._loop.call_soon_threadsafe(self._finish, tell, found)

    def _finish(self, tell: Callable[[Any], object], found: object) -> None:
        self._done = True
        if not self.result.done():
            tell(found)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def drop(self) -> None:
        """Say that the call will never be made."""
        self._finish(lambda _: self.result.cancel(), None)

    async def wait(self) -> None:
        """Wait until the call has ended, cancelled or not."""
        if not self._done:
            self._ended = self._loop.create_future()
            await self._ended
