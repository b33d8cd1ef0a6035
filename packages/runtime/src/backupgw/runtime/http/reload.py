"""What runs in each process on SIGHUP: files that may have changed are read again."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

_callbacks: list[Callable[[], None]] = []


def on_reload(callback: Callable[[], None]) -> None:
    """Call `callback` on each SIGHUP, on the event loop's thread; it must be quick."""
    _callbacks.append(callback)


def forget() -> None:
    """Call none of those that were told of so far: in a process forked off theirs."""
    _callbacks.clear()


def run_reload_callbacks() -> None:
    """Call them all; one that fails is logged and keeps no other from running."""
    for callback in tuple(_callbacks):
        try:
            callback()
        except Exception:  # whatever a service's callback raises must not stop the server
            logger.exception("reload: %r failed", callback)
