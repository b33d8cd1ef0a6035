"""Threads of the conformance suite: none is at work any more when an interrupt is told."""

from __future__ import annotations

import time
from functools import partial

from tests.ctrl_c import INTERRUPTED, at_every_step

from backupgw.kvstore.conformance.threads import run_together


def test_no_call_goes_on_after_an_interrupt() -> None:
    at_work: list[int] = []

    def call(index: int) -> None:
        at_work.append(index)
        time.sleep(0.01)
        at_work.remove(index)

    def together() -> int:
        try:
            run_together([partial(call, index) for index in range(3)], 60)
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            assert at_work == []
        return 0

    at_every_step(together, "conformance/threads.py")
