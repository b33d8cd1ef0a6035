"""Several threads that start together, with their errors brought back."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
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
    # Not Thread.join: once that was interrupted, it takes the thread for ended.
    ended = [False] * len(calls)
    endings: SimpleQueue[None] = SimpleQueue()

    def work(index: int) -> None:
        try:
            barrier.wait(patience)
            results[index] = calls[index]()
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            errors.append(error)
        finally:
            ended[index] = True
            endings.put(None)

    def wait(count: int) -> None:
        while not all(ended[:count]):
            try:
                endings.get(timeout=patience)
            except Empty:
                raise Violation(f"an operation was stuck for {patience:g} s") from None

    threads = [
        threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(calls))
    ]
    usual = sys.getswitchinterval()
    if hurried:
        sys.setswitchinterval(_SWITCH)
    try:
        for thread in threads:
            thread.start()
        wait(len(threads))
    except KeyboardInterrupt:
        # What they work on is removed next.
        barrier.abort()
        with contextlib.suppress(Violation):
            wait(sum(thread.ident is not None for thread in threads))
        raise
    finally:
        sys.setswitchinterval(usual)
    if errors:
        raise errors[0]
    return results
