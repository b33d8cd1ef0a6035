"""How many processes answer, where the settings do not say."""

from __future__ import annotations

import os

from backupgw.runtime.settings import Settings

from .settings import RestSettings

MOST = 4
"""Workers that are started unasked: each takes memory, and four keep a 10 Gbit/s line busy."""


def options(settings: Settings) -> RestSettings:
    """Return the section with the number of workers in it."""
    rest = settings.section("rest", RestSettings)
    return rest if rest.workers else rest.model_copy(update={"workers": _number(settings, rest)})


def _number(settings: Settings, rest: RestSettings) -> int:
    place = settings.places[rest.place]
    if not place.url.startswith("file:"):
        return 1  # what is waited for is the place, and some belong to one process
    if rest.cpu_profile is not None or any(layer.layer == "throttle" for layer in place.layers):
        return 1  # a profile is of one process, and each would have the whole bandwidth
    return min(MOST, len(os.sched_getaffinity(0)))
