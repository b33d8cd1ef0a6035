"""The last guard of a test run: a test that its time limit does not end takes its process along.

pytest-timeout raises once in a test that takes too long. Where the clean-up of that test waits
without limit, or a thread goes on, nothing would end the run. So a test that has not ended, with
what is set up and torn down for it, after FACTOR times its limit has every thread's stack printed
and its process ended; so has a run whose tests are all over, and which does not end. It is red
then: pytest-xdist names the test and goes on with another worker.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Generator

import pytest

FACTOR = 2
AT_THE_END = 120.0
"""Seconds for the end of a process after its last test."""

_printed = pytest.StashKey[int]()
_ends = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_printed] = os.dup(2)  # what is printed during a test is captured


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    config = item.config
    config.stash[_ends] = time.monotonic() + FACTOR * _limit(item) if _limit(item) else 0
    _guard(config)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    _guard(node.config)  # pytest has just called it off, for whoever debugs


def pytest_unconfigure(config: pytest.Config) -> None:
    faulthandler.dump_traceback_later(AT_THE_END, exit=True, file=config.stash[_printed])


def _guard(config: pytest.Config) -> None:
    if ends := config.stash.get(_ends, 0):
        left = max(ends - time.monotonic(), 0.001)
        faulthandler.dump_traceback_later(left, exit=True, file=config.stash[_printed])


def _limit(item: pytest.Item) -> float:
    """Seconds, as pytest-timeout takes them: the test's own, the command line's, the settings'."""
    if marker := item.get_closest_marker("timeout"):
        return float(marker.args[0])
    asked = item.config.getoption("timeout")
    return float(item.config.getini("timeout") or 0 if asked is None else asked)
