"""Ctrl-C at the moments at which a lock of Python's library stays taken."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from backupgw.runtime import cli

ENTER = threading.Condition.__enter__.__code__
PATIENCE = 60.0
"""Seconds after which a command counts as hanging."""


class StillRunning(BaseException):
    """The command did not end."""


def at_every_lock(command: Callable[[], int]) -> None:
    """Run a command over and over in this thread, interrupted where the thread takes such a lock
    for the first time, for the second, and so on, until it ends well before that."""
    moment, status = 0, cli.INTERRUPTED
    while status == cli.INTERRUPTED:
        moment += 1
        status = _interrupted(command, moment)
    assert (status, moment > 1) == (0, True)


def _interrupted(command: Callable[[], int], moment: int) -> int:
    left = moment

    def look(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        if event == "c_return" and frame.f_code is ENTER:
            left -= 1
            if not left:
                sys.setprofile(None)
                raise KeyboardInterrupt

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
