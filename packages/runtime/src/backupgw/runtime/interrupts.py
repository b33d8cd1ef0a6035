"""Ctrl-C for commands whose work is handed to threads.

Python raises KeyboardInterrupt in the main thread between any two instructions, so also between
the taking of a lock and the `with` that would release it where the lock is written in Python, as
`threading.Condition` is. A pool's thread that needs such a lock then waits for ever, and who waits
for the pool with it. So a thread that only waits, by a queue written in C, is the one that is
interrupted.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_GLANCE = 0.25
"""Seconds after which a signal is seen that came just before a wait began: Python looks for signals
after a call into C and while it waits there, but not between its turn to run and the call."""


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM take effect only at the end of the block. In the main thread only."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def attended(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """Do `work` on another thread and return its result. From the main thread.

    Args:
        stop: asks the work to end soon, from this thread; called once, at the first Ctrl-C.

    Raises:
        KeyboardInterrupt: at Ctrl-C, when the work has ended; at a second one at once.
        BaseException: what the work raised.
    """
    outcome: Future[T] = Future()
    ended: SimpleQueue[None] = SimpleQueue()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            outcome.set_exception(error)
        finally:
            # Twice: Ctrl-C may come when the first was taken and is not known yet.
            ended.put(None)
            ended.put(None)

    # A daemon: at its end the interpreter waits for all others, however often Ctrl-C is pressed.
    thread = threading.Thread(target=run, name="attended", daemon=True)
    try:
        with held_back():
            thread.start()
        _wait(ended)
    except KeyboardInterrupt:
        if thread.ident is not None:
            stop()
            _wait(ended)
        raise
    return outcome.result()


def _wait(ended: SimpleQueue[None]) -> None:
    while True:
        with contextlib.suppress(Empty):
            return ended.get(timeout=_GLANCE)
