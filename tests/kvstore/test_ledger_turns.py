"""Many threads share a ledger's transactions, and nobody waits for ever."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from backupgw.kvstore.ledger import LedgerFull, turns
from backupgw.kvstore.ledger.turns import Step, Turns


def nothing() -> None:
    return None


def nothing_with(_: object) -> None:
    return None


class Signalling(deque[Step[Any]]):
    """A queue that tells when eight wait in it."""

    def __init__(self) -> None:
        super().__init__()
        self.eight = threading.Event()

    def append(self, step: Step[Any]) -> None:
        super().append(step)
        if len(self) == 8:
            self.eight.set()


class Record:
    """Takes steps as a ledger's transactions would."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.full = False

    def __call__(self, steps: Sequence[Step[Any]]) -> None:
        if self.full:
            raise LedgerFull("no room")
        self.batches.append(len(steps))
        for step in steps:
            step.result = step.work(None)


def test_closing_never_hangs_however_it_meets_what_lingers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "LINGER", 0.0001)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    done: list[int] = []

    def note(number: int, _: object) -> None:
        done.append(number)

    def cycle() -> None:
        for number in range(3000):
            queue = Turns(Record(), nothing)
            queue.post(Step(partial(note, number)), linger=True)
            for _ in range(number % 100):
                queue.post(Step(nothing_with), linger=False)
            queue.end()

    thread = threading.Thread(target=cycle, daemon=True)
    thread.start()
    thread.join(60)
    sys.setswitchinterval(before)
    assert not thread.is_alive()
    assert done == list(range(3000))


def test_those_who_wait_share_a_transaction() -> None:
    record = Record()
    queue = Turns(record, nothing)
    waiting = queue.queue = Signalling()
    results: list[int] = []

    def ask(number: int) -> None:
        results.append(queue.run(Step(lambda _: number)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    with queue.turn:  # a transaction is under way
        for thread in threads:
            thread.start()
        assert waiting.eight.wait(60)
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))
    assert record.batches == [8]


def test_what_nobody_waits_for_is_kept_while_the_ledger_cannot_be_written() -> None:
    record = Record()
    queue = Turns(record, nothing)
    done: list[str] = []
    record.full = True
    queue.post(Step(lambda _: done.append("posted"), keep=True))
    with pytest.raises(LedgerFull):
        queue.run(Step(lambda _: done.append("asked")))
    assert done == []
    record.full = False
    queue.run(Step(lambda _: done.append("asked again")))
    assert done == ["posted", "asked again"]


def test_many_that_cannot_be_written_are_told_of_once_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = Record()
    queue = Turns(record, nothing)
    for _ in range(2):
        record.full = True
        for _ in range(50):
            queue.post(Step(nothing_with, keep=True))
        record.full = False
        queue.run(Step(nothing_with))
    told = [each for each in caplog.records if each.levelname == "WARNING"]
    assert [each.getMessage() for each in told] == ["the ledger will be told later: no room"] * 2


def test_all_that_is_remembered_is_done_at_the_end_if_it_can_be_written() -> None:
    record = Record()
    queue = Turns(record, nothing)
    done: list[int] = []

    def note(number: int, _: object) -> None:
        done.append(number)

    record.full = True
    for number in range(1000):
        queue.post(Step(partial(note, number), keep=True))
    queue.end()
    assert (done, len(queue.kept)) == ([], 1000)
    record.full = False
    queue.end()
    assert sorted(done) == list(range(1000))


@pytest.mark.parametrize("ending", [False, True])
def test_what_comes_while_the_last_that_lingers_is_written_is_not_left_lying(
    monkeypatch: pytest.MonkeyPatch, ending: bool
) -> None:
    done, begun, go_on = threading.Event(), threading.Event(), threading.Event()
    record = Record()

    def slow(steps: Sequence[Step[Any]]) -> None:
        begun.set()
        go_on.wait(60)
        record(steps)

    if ending:
        monkeypatch.setattr(turns, "LINGER", 60.0)  # the end is sooner
    queue = Turns(slow, nothing)
    queue.post(Step(nothing_with), linger=True)
    closing = threading.Thread(target=queue.end)
    if ending:
        closing.start()
    assert begun.wait(60)
    queue.post(Step(lambda _: done.set(), keep=True))
    go_on.set()
    if ending:
        closing.join(60)
        assert done.is_set()
    assert done.wait(10)
    queue.end()
