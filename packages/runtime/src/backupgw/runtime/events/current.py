"""The events of this process, for what happens beneath the services.

A place is opened from the settings alone, and worker processes get these pickled: nobody there can
hand down where events go. `start_gateway` leaves it here.
"""

from __future__ import annotations

import threading

from .dispatcher import Events
from .records import Event

_lock = threading.Lock()
_running: list[Events] = []


def remember(events: Events) -> Events:
    """Let `publish` reach these events until they are closed; returns them."""
    with _lock:
        _running[:] = [*(each for each in _running if not each.closed), events]
    return events


def publish(event: Event) -> bool:
    """Tell everybody of an event; returns whether anybody runs here to tell it. Never waits."""
    with _lock:
        open_ones = [each for each in _running if not each.closed]
    return open_ones[-1].publish(event) if open_ones else False
