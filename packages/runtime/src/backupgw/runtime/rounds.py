"""A thread that looks for work by the clock and whenever somebody rings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

AFTER_FAULT = 30.0
"""Seconds until the next round after one that was broken off by a defect."""


class Rounds:
    """Makes one round after another on a thread of its own, from `start` to `close`.

    Args:
        call: one round; returns the seconds until the next, None for not before somebody rings.
            What it raises is logged with its traceback, and the next round is made after all: a
            defect or a full disk must not end what nobody else does.
        name: the thread's.
        failing: what is logged when a round raises.
    """

    def __init__(self, call: Callable[[], float | None], *, name: str, failing: str) -> None:
        self._call = call
        self._failing = failing
        self._change = threading.Condition()
        self._rung = True
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def closed(self) -> bool:
        """Whether a round that runs has to come to its end."""
        return self._closed

    def start(self) -> None:
        """Begin with a round."""
        self._thread.start()

    def ring(self) -> None:
        """Have a round made now, or after the one that runs. From any thread, started or not."""
        with self._change:
            self._rung = True
            self._change.notify()

    def close(self) -> None:
        """End the thread, after the round that runs."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        wait: float | None = 0.0
        while True:
            with self._change:
                self._change.wait_for(lambda: self._rung or self._closed, timeout=wait)
                if self._closed:
                    return
                self._rung = False
            try:
                wait = self._call()
            except Exception:
                # A defect must not end the thread: nobody else does this work.
                log.exception(self._failing)
                wait = AFTER_FAULT
