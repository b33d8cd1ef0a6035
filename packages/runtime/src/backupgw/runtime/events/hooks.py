"""Commands and webhooks: one thread each, fed from the journal, with retries.

A hook carries one letter at a time. An attempt that failed pauses the hook, 1 s at first, doubled
by each further failure in a row up to five minutes, half of it random so that many gateways do not
come back at once; so a dead endpoint sees one request every few minutes, however many letters
wait. The letter itself goes on pausing when others get through: one that an endpoint chokes on
holds up nobody else.
"""

from __future__ import annotations

import enum
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .filters import Filter
from .journal import Journal, Letter
from .records import Message

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
"""Seconds between attempts."""
LOOK_AGAIN = 30.0
"""Seconds after which a hook looks for letters that a dead worker left behind."""
PATIENCE = 2.0
"""Seconds that running attempts may go on when the gateway stops."""
MARGIN = 10.0
"""Seconds that a claim outlives the attempt's own time limit."""


class Result(enum.Enum):
    """How an attempt ended."""

    DELIVERED = "delivered"
    FAILED = "failed"
    """to be tried again"""
    REFUSED = "refused"
    """the receiver will not have it, now or later"""
    INTERRUPTED = "interrupted"
    """the gateway is stopping: to be tried again after its start"""


@dataclass(frozen=True)
class Outcome:
    """The result of an attempt; `reason` in a line without secrets, `after` in seconds."""

    result: Result
    reason: str = ""
    after: float | None = None


class Carrier(Protocol):
    """Brings one letter to where a hook points."""

    time_limit: float
    """Seconds that `deliver` takes at most."""

    def deliver(self, letter: Letter) -> Outcome:
        """Try once; in the hook's thread."""

    def interrupt(self) -> None:
        """Make a running `deliver` return soon, and any later one at once; from any thread."""

    def close(self) -> None:
        """Free what `deliver` used; in the hook's thread, at its end."""


@dataclass(frozen=True)
class Hook:
    """A receiver as the settings describe it.

    Attributes:
        name: unique; the journal knows the hook by it.
        keep_for: seconds after which an undelivered event is given up.
    """

    name: str
    wanted: Filter
    carrier: Carrier
    keep_for: float


def pause(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row, from 1."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
    return longest * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, hides nothing


class _Counts:
    def __init__(self) -> None:
        # Imported late: whoever serves nothing needs no prometheus_client.
        from backupgw.runtime import metrics

        self._letters = metrics.counter(
            "backupgw_event_deliveries_total",
            "Events on their way to hooks: accepted, delivered, failed (an attempt), refused, "
            "expired, overflow (the oldest made room).",
            ("hook", "result"),
        )

    def add(self, hook: str, result: str, count: int = 1) -> None:
        if count:
            self._letters.add(count, hook, result)


class Hooks:
    """The sink that journals events and has them carried."""

    name = "hooks"

    def __init__(
        self,
        hooks: Sequence[Hook],
        journal: Journal,
        *,
        pending: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start a thread for each hook.

        Args:
            pending: letters that a hook may hold.
            clock: seconds since the epoch.
        """
        self._hooks = tuple(hooks)
        self._journal = journal
        self._pending = pending
        self._counts = _Counts()
        lost = journal.keep_only([hook.name for hook in hooks])
        if lost:
            logger.warning("events: %d undelivered ones were for hooks no longer there", lost)
        self._workers = {
            hook.name: _Worker(hook, journal, self._counts, clock) for hook in self._hooks
        }

    def take(self, messages: Sequence[Message]) -> None:
        letters = [
            (hook.name, message.id, message.event.type, message.time, message.text)
            for message in messages
            for hook in self._hooks
            if hook.wanted.wants(message.event)
        ]
        if not letters:
            return
        overflow = self._journal.add(letters, self._pending)
        for hook, count in overflow.items():
            self._counts.add(hook, "overflow", count)
        for hook in {letter[0] for letter in letters}:
            self._counts.add(hook, "accepted", sum(letter[0] == hook for letter in letters))
            self._workers[hook].wake()

    def close(self, timeout: float) -> None:
        for worker in self._workers.values():
            worker.stop()
        deadline = time.monotonic() + timeout
        # An attempt cut off here would be made again: it may end where that takes a moment.
        patience = time.monotonic() + min(PATIENCE, timeout / 2)
        for worker in self._workers.values():
            if not worker.join(patience - time.monotonic()):
                worker.interrupt()
        ended = [worker.join(deadline - time.monotonic()) for worker in self._workers.values()]
        if all(ended):
            self._journal.close()
        else:
            logger.warning("events: a hook did not end in %.0f s; it is left behind", timeout)


class _Worker:
    def __init__(
        self, hook: Hook, journal: Journal, counts: _Counts, clock: Callable[[], float]
    ) -> None:
        self._hook = hook
        self._journal = journal
        self._counts = counts
        self._clock = clock
        self._changed = threading.Condition()
        self._news = True
        self._stopping = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"hook {hook.name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        with self._changed:
            self._news = True
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def interrupt(self) -> None:
        with self._changed:
            # A carrier that was closed has nothing left to be interrupted with.
            if not self._ended:
                self._hook.carrier.interrupt()

    def join(self, timeout: float) -> bool:
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait = self._step()
                if wait <= 0:
                    continue
                with self._changed:
                    if not self._news and not self._stopping:
                        self._changed.wait(min(wait, LOOK_AGAIN))
                    self._news = False
        finally:
            with self._changed:
                self._ended = True
            self._hook.carrier.close()

    def _step(self) -> float:
        """Carry one letter; return the seconds until there is more to do."""
        hook = self._hook
        try:
            claim = self._journal.claim(
                hook.name,
                self._clock(),
                hook.carrier.time_limit + MARGIN,
                hook.keep_for,
                LONGEST_PAUSE,
            )
            if claim.expired:
                self._counts.add(hook.name, "expired", claim.expired)
                logger.error("hook %s: %d events were too old", hook.name, claim.expired)
            if claim.letter is None:
                return LOOK_AGAIN if claim.wait is None else max(claim.wait, 0.01)
            self._settle(claim.letter, self._attempt(claim.letter))
        except sqlite3.Error:
            logger.exception("hook %s: the events' journal failed", hook.name)
            return pause(4)
        return 0.0

    def _attempt(self, letter: Letter) -> Outcome:
        try:
            return self._hook.carrier.deliver(letter)
        except Exception as error:  # a fault of ours must not end the hook's thread
            logger.exception("hook %s: an attempt failed", self._hook.name)
            return Outcome(Result.FAILED, type(error).__name__)

    def _settle(self, letter: Letter, outcome: Outcome) -> None:
        hook, now = self._hook.name, self._clock()
        if outcome.result is Result.INTERRUPTED:
            self._journal.later(hook, letter, letter_at=0, hook_at=0, counts=False)
            return
        self._counts.add(hook, outcome.result.value)
        if outcome.result is Result.FAILED:
            asked = min(outcome.after or 0.0, LONGEST_PAUSE)
            letter_at = now + max(asked, pause(letter.attempts + 1))
            hook_at = now + max(asked, pause(letter.failures + 1))
            self._journal.later(hook, letter, letter_at=letter_at, hook_at=hook_at, counts=True)
            # The first failure in a row is news; the hundredth is not.
            level = logging.DEBUG if letter.failures else logging.WARNING
            logger.log(level, "hook %s: %s; it is tried again", hook, outcome.reason)
            return
        delivered = outcome.result is Result.DELIVERED
        self._journal.done(hook, letter, answered=delivered)
        if not delivered:
            logger.error("hook %s: %s; event %s is given up", hook, outcome.reason, letter.id)
        elif letter.failures:
            logger.info("hook %s: works again after %d failures", hook, letter.failures)
