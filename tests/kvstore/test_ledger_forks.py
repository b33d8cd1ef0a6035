"""Whoever forks, and however many at once: each ledger is told once before and once after."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from backupgw.kvstore.ledger import forks


class Told:
    """Something that must not be told of a fork within another."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self.fails = False
        self.before = self.after = self.in_child = 0

    def before_fork(self) -> None:
        if self.fails:
            raise OSError(5, "Input/output error")
        assert self._turn.acquire(blocking=False), "another fork was not over"
        self.before += 1

    def after_fork_in_parent(self) -> None:
        self.after += 1
        self._turn.release()

    def after_fork_in_child(self) -> None:
        self.in_child += 1


@pytest.fixture
def followed() -> Iterator[list[Told]]:
    told = [Told(), Told(), Told()]
    for each in told:
        forks.follow(each)
    yield told
    for each in told:
        forks.leave(each)


def fork(told: list[Told]) -> int:
    """Return the status of a child: 0 where all were told once that it is one."""
    child = os.fork()
    if child == 0:
        os._exit(0 if [each.in_child for each in told] == [1] * len(told) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_threads_that_fork_at_once_take_turns(followed: list[Told]) -> None:
    together = threading.Barrier(4)

    def work(_: int) -> list[int]:
        together.wait(60)
        return [fork(followed) for _ in range(10)]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == [[0] * 10] * 4
    assert [(each.before, each.after) for each in followed] == [(40, 40)] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_cannot_get_ready_begins_anew_in_the_child_and_stops_nobody_else(
    followed: list[Told],
) -> None:
    good, bad, better = followed
    bad.fails = True
    for _ in range(3):
        assert fork(followed) == 0
    assert [(each.before, each.after) for each in (good, better)] == [(3, 3)] * 2
    assert (bad.before, bad.after) == (0, 0)


def test_who_left_is_told_no_more(followed: list[Told]) -> None:
    gone = followed.pop()
    forks.leave(gone)
    assert fork(followed) == 0
    assert gone.before == 0
