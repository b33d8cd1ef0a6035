"""Lines that others could make us write at will are few."""

from __future__ import annotations

from backupgw.runtime.seldom import Seldom


def test_a_line_is_due_at_once_and_then_after_a_pause_with_how_many_were_left_out() -> None:
    now = [100.0]
    seldom = Seldom(pause=60, clock=lambda: now[0])
    assert [seldom.due("a") for _ in range(4)] == ["", None, None, None]
    assert seldom.due("b") == ""
    now[0] += 60
    assert seldom.due("a") == " (3 more like this since the last such line)"
    now[0] += 60
    assert seldom.due("a") == ""


def test_kinds_beyond_the_most_share_one_line() -> None:
    now = [0.0]
    seldom = Seldom(pause=60, kinds=10, clock=lambda: now[0])
    lines = [seldom.due(number) for number in range(1000)]
    assert sum(line is not None for line in lines) == 11
    now[0] += 60
    assert seldom.due(5000) == "", "what is over makes room"
