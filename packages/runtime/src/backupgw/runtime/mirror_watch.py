"""How the places of a mirror are, as metrics and as events: the hook of the layer `mirror`."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from backupgw.kvstore.layers.mirror_places import PlaceStatus, State

from .events import Event, PlaceFailed, PlaceRecovered, current
from .metrics import counter, gauge
from .secrets import redact_url

_LABELS = ("mirror", "place", "number")
_LEVELS = {State.UP: 0, State.SUSPECT: 1, State.DOWN: 2}


class MirrorWatch:
    """Takes over each status that a mirror tells.

    Args:
        mirror: what the settings call the place with the layer.
        places: what they call its places, the first included.
    """

    def __init__(self, mirror: str, places: Sequence[str]) -> None:
        self._mirror = mirror
        self._places = list(places)
        self._lock = threading.Lock()
        self._failed_at: dict[str, float] = {}

    def __call__(self, status: PlaceStatus) -> None:
        """Count it, and publish an event where the place has failed or recovered."""
        name = self._places[int(status.place) - 1]
        self._measure(name, status)
        event = self._event(name, status)
        if event is not None:
            current.publish(event)

    def _measure(self, name: str, status: PlaceStatus) -> None:
        labels = (self._mirror, name, status.place)
        gauge(
            "backupgw_mirror_place_state",
            "A place of a mirror: 0 up, 1 suspect (its last calls failed), 2 down.",
            _LABELS,
            largest=True,
        ).set(_LEVELS[status.state], *labels)
        gauge(
            "backupgw_mirror_place_missed_names",
            "Names that a place of a mirror does not hold as it should.",
            _LABELS,
            largest=True,
        ).set(status.missed, *labels)
        gauge(
            "backupgw_mirror_place_unfilled",
            "1 for a place of a mirror that is new and not read from until it was filled.",
            _LABELS,
            largest=True,
        ).set(0 if status.trusted else 1, *labels)

    def _event(self, name: str, status: PlaceStatus) -> Event | None:
        down = status.state is State.DOWN
        with self._lock:
            failed_at = self._failed_at.get(status.place)
            if down == (failed_at is not None):
                return None
            if down:
                self._failed_at[status.place] = status.since
            else:
                del self._failed_at[status.place]
        if failed_at is not None:
            seconds = max(0.0, status.since - failed_at)
            return PlaceRecovered(place=name, seconds=seconds, mirror=self._mirror)
        counter(
            "backupgw_mirror_place_failures_total",
            "How often a place of a mirror went down.",
            _LABELS,
        ).add(1, self._mirror, name, status.place)
        return PlaceFailed(place=name, reason=redact_url(status.reason), mirror=self._mirror)
