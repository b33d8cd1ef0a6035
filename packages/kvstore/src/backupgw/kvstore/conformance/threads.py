"""Several threads that start together, with their errors brought back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .verdicts import Violation

_SWITCH = 20e-6
"""Seconds after which Python's threads take turns; the usual 5 ms would hide many a race."""


def run_together(
    calls: Sequence[Callable[[], Any]], patience: float, *, hurried: bool = True
) -> list[Any]:
    """Run each call in a thread, all at the same moment; return their results in order.

    Args:
        calls: what to run.
        patience: seconds.
        hurried: let them take turns so often that races show, which costs time.

    Raises:
        Violation: a call was stuck for `patience` seconds.
        Exception: the first that a call raised.
    """
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            barrier.wait(patience)
            results[index] = calls[index]()
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(calls))
    ]
    usual = sys.getswitchinterval()
    if hurried:
        sys.setswitchinterval(_SWITCH)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(patience)
            if thread.is_alive():
                raise Violation(f"an operation was stuck for {patience:g} s")
    finally:
        sys.setswitchinterval(usual)
    if errors:
        raise errors[0]
    return results
