"""Work that is looked for by the clock and when somebody rings."""

from __future__ import annotations

import queue

import pytest

from backupgw.runtime import rounds
from backupgw.runtime.rounds import Rounds

PATIENCE = 10.0


class Script:
    """Answers each round with the next of what it was given, and tells of it."""

    def __init__(self, *answers: float | Exception | None) -> None:
        self._answers = list(answers)
        self.made: queue.Queue[int] = queue.Queue()
        self._count = 0

    def __call__(self) -> float | None:
        self._count += 1
        self.made.put(self._count)
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_rounds_are_made_by_the_clock_and_by_the_bell() -> None:
    script = Script(0.0, None, None)
    working = Rounds(script, name="test", failing="it fails")
    working.start()
    try:
        assert [script.made.get(timeout=PATIENCE) for _ in range(2)] == [1, 2]
        with pytest.raises(queue.Empty):
            script.made.get(timeout=0.1)
        working.ring()
        assert script.made.get(timeout=PATIENCE) == 3
    finally:
        working.close()
    assert working.closed
    working.ring()
    with pytest.raises(queue.Empty):
        script.made.get(timeout=0.1)


def test_a_defect_is_logged_and_the_next_round_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rounds, "AFTER_FAULT", 0.01)
    script = Script(ZeroDivisionError("a defect"), None)
    working = Rounds(script, name="test", failing="nothing can be looked for")
    working.start()
    try:
        assert [script.made.get(timeout=PATIENCE) for _ in range(2)] == [1, 2]
    finally:
        working.close()
    assert "nothing can be looked for" in caplog.text
    assert "a defect" in caplog.text


def test_what_never_began_is_closed_at_once() -> None:
    working = Rounds(Script(), name="test", failing="it fails")
    working.ring()
    working.close()
