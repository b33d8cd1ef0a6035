"""Ctrl-C at the moments at which a lock of Python's library stays taken: nothing waits for it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from backupgw.runtime import cli
from tests.providers.provider_site import PATIENCE, Site

ENTER = threading.Condition.__enter__.__code__


class StillRunning(BaseException):
    """The command did not end."""


@contextmanager
def ctrl_c_at(moment: int) -> Iterator[list[int]]:
    """Interrupt this thread where it takes such a lock for the so manieth time; yields where to
    look whether that came."""
    came: list[int] = []

    def look(frame: FrameType, event: str, _argument: object) -> None:
        if event == "c_return" and frame.f_code is ENTER:
            came.append(moment)
            if len(came) == moment:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        yield came
    finally:
        sys.setprofile(None)


@contextmanager
def ends_soon() -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise StillRunning

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_upload_ends_wherever_it_is_interrupted(site: Site) -> None:
    nas = site.local()
    files = [str(site.file(f"{number}", b"%d" % number)) for number in range(20)]
    words = ["provider", "upload", "local", *files, "--config", str(site.config)]
    for moment in range(1, 1000):
        with ends_soon(), ctrl_c_at(moment) as came:
            status = cli.main(words)
        if len(came) < moment:
            break
        assert status == cli.INTERRUPTED
    assert status == 0
    assert len([path for path in nas.iterdir() if path.name.isdigit()]) == 20
