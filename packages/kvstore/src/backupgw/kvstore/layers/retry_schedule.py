"""How often and how long something is tried again.

Full jitter: the n-th pause is a random time up to `first` times 2ⁿ, at most `longest`, so that many
clients that failed together do not come back together
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). What the place asks
for (`retry_after`) is waited for in any case, with the jitter on top.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..backends.errors import BackendError
from . import options


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to try again.

    Attributes:
        attempts: how often something is tried, the first time included.
        deadline: seconds after the first failure at which nothing is begun any more.
        first: seconds that the first pause takes at most.
        longest: seconds that any pause takes at most, unless the place asks for more.
        clock: monotonic seconds. sleep: waits. uniform: a random number between two.
    """

    attempts: int = 5
    deadline: float = 120.0
    first: float = 0.1
    longest: float = 10.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    uniform: Callable[[float, float], float] = field(default=random.uniform, repr=False)


def read_schedule(
    attempts: object, deadline: object, first_pause: object, longest_pause: object = None
) -> Schedule:
    """Return what options say: how often at most, the first included; the others are times.

    Args:
        longest_pause: None for the usual one, or `first_pause` where that is longer.

    Raises:
        OptionInvalid: one of them has no possible value.
    """
    first = options.duration("first_pause", first_pause)
    if longest_pause is None:
        longest = max(first, Schedule().longest)
    else:
        longest = options.duration("longest_pause", longest_pause)
    if longest < first:
        raise options.OptionInvalid("longest_pause", f"must be at least first_pause, {first:g} s")
    return Schedule(
        attempts=options.count("attempts", attempts, least=1),
        deadline=options.duration("deadline", deadline),
        first=first,
        longest=longest,
    )


class Trials:
    """The failures of one operation so far.

    Args:
        sleep: in the place of the schedule's.
    """

    def __init__(self, schedule: Schedule, sleep: Callable[[float], None] | None = None) -> None:
        self._schedule = schedule
        self._sleep = sleep or schedule.sleep
        self._failures = 0
        self._ends = 0.0

    @property
    def failed(self) -> bool:
        """Whether an attempt failed in a way that leaves open whether it took effect."""
        return self._failures > 0

    def succeeded(self) -> None:
        """Some of it is done: what fails from here on is a failure of its own."""
        self._failures = 0

    def pause(self, error: BackendError) -> None:
        """Wait for the next attempt, or raise `error` where there is to be none."""
        wait = self._wait_after(error)
        if wait is not None:
            self._sleep(wait)
            return
        try:
            raise error
        finally:
            # Or it and this call would know each other, and stay until the collector of garbage
            # comes, with all that the calls hold which it came through: a part's bytes.
            del error

    def _wait_after(self, error: BackendError) -> float | None:
        """Return the seconds until the next attempt, None where there is to be none."""
        schedule = self._schedule
        if not error.retryable:
            return None
        now = schedule.clock()
        if self._failures == 0:
            self._ends = now + schedule.deadline
        self._failures += 1
        if self._failures >= schedule.attempts:
            return None
        # 2¹⁰⁰⁰ is a number, 2¹¹⁰⁰ none.
        most = min(schedule.first * 2.0 ** min(self._failures - 1, 1000), schedule.longest)
        wait = (error.retry_after or 0.0) + schedule.uniform(0.0, most)
        return None if now + wait > self._ends else wait
