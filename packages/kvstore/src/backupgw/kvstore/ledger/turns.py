"""Group commit without a thread: whoever finds the ledger free does the work of all who wait.

A transaction costs much the same for one step as for ten. Steps are queued; the thread that gets
the turn takes the whole queue into one transaction, and the others find theirs done when their
turn comes. A step that nobody waits for (a settle: its intent is on record, so it cannot be lost)
is done at once when the ledger is free, and else by whoever has the turn, who looks at the queue
again after giving it up. One that is in no hurry either lingers until the next transaction takes it
along; where none comes in time, a thread that otherwise sleeps sees to it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from .errors import LedgerError
from .held import NO_NEEDS, Needs

MOST_AT_ONCE = 256
"""Steps in a transaction, so that other processes get at the ledger too."""

LINGER = 0.05
"""Seconds that a step lingers where no other transaction takes it along."""

MOST_KEPT = 10_000
"""Steps remembered while the ledger cannot be written."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Step(Generic[T]):
    """Something to do in a transaction.

    Args:
        work: gets the books; it either changes nothing and raises, or does all of its part.
        keep: nobody waits for it: it is remembered when its transaction fails.
        needs: what the work is going to read.
    """

    __slots__ = ("done", "error", "keep", "needs", "result", "work")

    result: T

    def __init__(
        self,
        work: Callable[[Any], T],
        *,
        keep: bool = False,
        needs: Needs = NO_NEEDS,
    ) -> None:
        self.work = work
        self.needs = needs
        self.keep = keep
        self.done = False
        self.error: Exception | None = None


class Turns:
    """The queue of one ledger in one process.

    Args:
        transact: does the steps in one transaction, setting `result` or `error` of each. It raises
            when the transaction failed: then nothing of it happened.
        after: called after transactions, by a thread that has not got the turn.
        tick: called with the turn, LINGER seconds after `wake` or when something began to linger;
            returns whether it wants to be called again, and what lingers alone may wait for that.
        forgotten: the work of a step that makes up for those that could not be remembered.
    """

    def __init__(
        self,
        transact: Callable[[Sequence[Step[Any]]], None],
        after: Callable[[], None],
        tick: Callable[[], bool] = lambda: False,
        forgotten: Callable[[Any], object] = lambda _books: None,
    ) -> None:
        self._transact = transact
        self._after = after
        self._tick = tick
        self._starting = threading.Lock()
        self.queue: deque[Step[Any]] = deque()
        """Steps to be done."""
        self.kept: deque[Step[Any]] = deque()
        """Steps whose transactions failed."""
        self._forgotten = forgotten
        self._making_up: Step[Any] | None = None
        self._failing = False
        self.turn = threading.Lock()
        """Held while a transaction is under way."""
        self.lingering: deque[Step[Any]] = deque()
        """Steps that are in no hurry; taken from with the turn only."""
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._flusher: threading.Thread | None = None

    def run(self, step: Step[T]) -> T:
        """Do the step and return its result, or raise what it or its transaction raised."""
        self.queue.append(step)
        with self.turn:
            while not step.done:
                self._take()
        self._sweep()
        self._after()
        if step.error is not None:
            raise step.error
        return step.result

    def post(self, step: Step[Any], *, linger: bool = False) -> None:
        """Have the step done without waiting for others, or in a while if it may `linger`.

        Never raises for the transaction.
        """
        if linger:
            self.lingering.append(step)
            self.wake()
            return
        self.queue.append(step)
        self._sweep()
        self._after()

    def wake(self) -> None:
        """Have what lingers done, and a tick, in LINGER seconds."""
        if not self._wake.is_set():
            self._wake.set()
            if self._flusher is None:
                self._start_flusher()

    def catch_up(self) -> None:
        """Do what was queued while somebody had the turn who did not look at the queue."""
        self._sweep()
        self._after()

    @property
    def remembers(self) -> bool:
        """Whether there are steps whose transactions failed."""
        return bool(self.kept)

    def end(self) -> None:
        """Do what is queued, lingers or is remembered, and stop the thread that would have.

        What cannot be written stays remembered.
        """
        self._ending.set()
        self._wake.set()
        if self._flusher is not None:
            self._flusher.join()
        while self.lingering or self.kept or self.queue:
            with self.turn:
                self._take()
            if self._failing:
                return

    def _start_flusher(self) -> None:
        with self._starting:
            if self._flusher is None:
                self._flusher = threading.Thread(
                    target=self._flush, name="ledger-flusher", daemon=True
                )
                self._flusher.start()

    def _flush(self) -> None:
        while self._wake.wait() and not self._ending.wait(LINGER):
            self._wake.clear()
            if self._ending.is_set():
                return  # its wake-up may just have been cleared
            with self.turn:
                again = self._tick()
            self.catch_up()
            if again:
                self._wake.set()
                if len(self.lingering) < 2:
                    continue
            while self.lingering:
                with self.turn:
                    self._take()
                self.catch_up()

    def _sweep(self) -> None:
        """Do what was queued while the turn was taken and nobody waits for."""
        while self.queue and self.turn.acquire(blocking=False):
            try:
                self._take()
            finally:
                self.turn.release()

    def _take(self) -> None:
        """Do one batch."""
        batch = [] if self._making_up is None else [self._making_up]
        while self.kept and len(batch) < MOST_AT_ONCE // 4:
            batch.append(self.kept.popleft())
        while self.lingering and len(batch) < MOST_AT_ONCE // 2:
            batch.append(self.lingering.popleft())
        while self.queue and len(batch) < MOST_AT_ONCE:
            batch.append(self.queue.popleft())
        try:
            self._transact(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            self._failed(batch, error)
        except BaseException:
            self._failed(batch, LedgerError("interrupted", retryable=True))
            raise
        else:
            self._failing = False
            self._making_up = None
            for step in batch:
                step.done = True

    def _failed(self, batch: Sequence[Step[Any]], error: Exception) -> None:
        kept = [step for step in batch if step.keep]
        if kept:
            # Once for each time that it cannot be written: many more steps may follow.
            level = logging.DEBUG if self._failing else logging.WARNING
            logger.log(level, "the ledger will be told later: %s", error)
            self._failing = True
            self.kept.extend(kept)
        while len(self.kept) > MOST_KEPT:
            self.kept.popleft()
            if self._making_up is None:
                logger.error("the ledger could not be told for too long; it has to count anew")
                self._making_up = Step(self._forgotten)
        for step in batch:
            if not step.keep:
                step.error = error
                step.done = True
