"""Ctrl-C at every moment of some kind: where locks of Python's library stay taken, in some code."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

ENTER = threading.Condition.__enter__.__code__
INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a command that Ctrl-C ended."""
PATIENCE = 60.0
"""Seconds after which a command counts as hanging."""


class StillRunning(BaseException):
    """The command did not end."""


def at_every_lock(command: Callable[[], int]) -> None:
    """Run a command over and over in this thread, interrupted where the thread takes such a lock
    for the first time, for the second, and so on, until it ends well before that."""

    def taken(frame: FrameType, event: str) -> bool:
        return event == "c_return" and frame.f_code is ENTER

    _at_every(command, taken)


def at_every_step(command: Callable[[], int], *parts: str) -> None:
    """Run a command over and over in this thread, interrupted at the first call or return in code
    whose file ends with one of `parts`, at the second, and so on, until it ends well before."""

    def within(frame: FrameType, _event: str) -> bool:
        return frame.f_code.co_filename.endswith(parts)

    _at_every(command, within)


def _at_every(command: Callable[[], int], at: Callable[[FrameType, str], bool]) -> None:
    moment, status = 0, INTERRUPTED
    while status == INTERRUPTED:
        moment += 1
        status = _interrupted(command, moment, at)
    assert (status, moment > 1) == (0, True)


def _interrupted(
    command: Callable[[], int], moment: int, at: Callable[[FrameType, str], bool]
) -> int:
    left = moment

    def look(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        if at(frame, event):
            left -= 1
            if not left:
                sys.setprofile(None)
                # As where the signal comes there, and not in here.
                handler = signal.getsignal(signal.SIGINT)
                assert callable(handler)
                handler(signal.SIGINT, frame)

    def late(_number: int, _frame: FrameType | None) -> None:
        raise StillRunning

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    sys.setprofile(look)
    try:
        return command()
    finally:
        sys.setprofile(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
