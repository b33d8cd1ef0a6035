"""The double of Drime in a process of its own: its memory and its time are not the client's."""

from __future__ import annotations

from functools import partial
from typing import Self

from .double_process import DoubleProcess
from .drime_double import DrimeDouble
from .drime_entries import Switches


class DrimeProcess(DoubleProcess[DrimeDouble]):
    """A running double. A context manager.

    Args:
        latency: seconds before each answer.
        any_size: simple uploads of any size are taken.

    Attributes:
        key: one that it accepts.
    """

    def __init__(self, *, latency: float = 0.0, any_size: bool = False) -> None:
        super().__init__(partial(_made, latency, any_size))
        self.key = ""

    def __enter__(self) -> Self:
        super().__enter__()
        self.key = self.tell(_key)
        return self

    def counts(self, *, forget: bool = False) -> dict[str, int]:
        """Return how many requests came so far, by kind.

        Args:
            forget: count from here on.
        """
        return self.tell(_counts, forget)


def _made(latency: float, any_size: bool) -> DrimeDouble:
    drime = DrimeDouble(Switches(largest_simple=None) if any_size else Switches())
    drime.api.delay = drime.storage.delay = latency
    return drime


def _key(drime: DrimeDouble) -> str:
    return drime.key


def _counts(drime: DrimeDouble, forget: bool) -> dict[str, int]:
    counted = dict(drime.counts())
    if forget:
        drime.forget_calls()
    return counted
