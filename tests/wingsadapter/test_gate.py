"""Backups together, prune alone, and nobody for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from backupgw.runtime.restic import StopSignal
from backupgw.wingsadapter.adapter import Stopped
from backupgw.wingsadapter.gate import Gate


def thread(call: Callable[[], None]) -> threading.Thread:
    found = threading.Thread(target=call, daemon=True)
    found.start()
    return found


def test_together_and_alone() -> None:
    gate = Gate()
    inside: list[str] = []
    alone, leave = threading.Event(), threading.Event()

    def prune() -> None:
        with StopSignal() as stop, gate.alone(stop, 60):
            inside.append("alone")
            alone.set()
            leave.wait(10)

    def back_up() -> None:
        with StopSignal() as stop, gate.together(stop):
            inside.append("late")

    with StopSignal() as stop:
        with gate.together(stop), gate.together(stop):
            pruning = thread(prune)
            assert not alone.wait(0.1)
            # It is patient: who comes now still goes before it.
            with gate.together(stop):
                pass
        assert alone.wait(10)
        late = thread(back_up)
        late.join(0.1)
        assert inside == ["alone"]
        leave.set()
        late.join(10)
        pruning.join(10)
    assert inside == ["alone", "late"]


def test_who_waits_too_long_goes_first() -> None:
    gate = Gate()
    order: list[str] = []

    def prune() -> None:
        with StopSignal() as stop, gate.alone(stop, 0.05):
            order.append("alone")

    def back_up() -> None:
        with StopSignal() as stop, gate.together(stop):
            order.append("late")

    with StopSignal() as stop:
        with gate.together(stop):
            pruning = thread(prune)
            pruning.join(0.3)
            late = thread(back_up)
            late.join(0.2)
            assert order == []
        pruning.join(10)
        late.join(10)
    assert order == ["alone", "late"]


def test_whoever_waits_can_be_stopped() -> None:
    gate = Gate()
    with StopSignal() as holder, gate.alone(holder, 0):
        with StopSignal() as stop:
            threading.Timer(0.1, stop.set).start()
            with pytest.raises(Stopped), gate.together(stop):
                pass
        with StopSignal() as stop:
            threading.Timer(0.1, stop.set).start()
            with pytest.raises(Stopped), gate.alone(stop, 60):
                pass
    with StopSignal() as stop, gate.together(stop):
        pass
