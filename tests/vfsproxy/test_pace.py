"""Tasks give way while clients ask for things, and only then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from backupgw.vfsproxy.tasks import pace
from backupgw.vfsproxy.tasks.pace import SLICE, Pace, Traffic


class Context:
    """Of a task, as far as its pace knows it: how long its rests were."""

    def __init__(self) -> None:
        self.rests: list[float] = []
        self.checked = 0

    def check(self) -> None:
        self.checked += 1

    def wait(self, seconds: float) -> bool:
        self.rests.append(seconds)
        return False


def work(steps: Pace, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        steps.step()


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    return Traffic(tmp_path / "traffic")


def test_nobody_is_given_way_to_where_nobody_asks(traffic: Traffic) -> None:
    context = Context()
    work(Pace(context, traffic, rest=5.0), 0.05)  # type: ignore[arg-type]
    assert not context.rests
    assert context.checked, "it still asks whether it is to stop"


def test_rests_are_as_much_longer_as_was_said(traffic: Traffic, tmp_path: Path) -> None:
    other = Traffic(tmp_path / "traffic")  # another process's
    context = Context()
    other.note()
    work(Pace(context, traffic, rest=5.0), 0.05)  # type: ignore[arg-type]
    assert context.rests
    assert min(context.rests) >= 5 * SLICE


def test_who_has_asked_long_ago_is_forgotten(
    traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "BUSY", 1.0)
    traffic.note()
    assert traffic.busy()
    time.sleep(1.1)
    assert not traffic.busy()
    traffic.close()
    traffic.note()
