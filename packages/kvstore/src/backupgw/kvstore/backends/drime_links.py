"""Links to Drime's storage that are used again.

A download is a redirection to a link of the storage's, signed for some minutes, which the link
itself tells (S3's presigned URLs: X-Amz-Expires, in seconds). Whoever reads a pack range by range
needs one link, not one for each range.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

MOST = 60.0
"""Seconds for which a link is used at most: an item that another gateway has deleted may be read
for as long."""

_MARGIN = 10.0
"""Seconds before its end from which on a link is not used any more."""

_KEPT = 1000


class Links:
    """The links of some entries. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def get(self, entry: int) -> str | None:
        """Return an entry's link, None where there is none that is good."""
        with self._lock:
            link, until = self._links.get(entry, ("", 0.0))
            return link if time.monotonic() < until else None

    def keep(self, entry: int, link: str) -> bool:
        """Keep a link that was just made; False where it does not tell that it is good for long."""
        seconds = min(MOST, told_seconds(link) - _MARGIN)
        if seconds <= 0:
            return False
        with self._lock:
            self._links[entry] = link, time.monotonic() + seconds
            self._links.move_to_end(entry)
            if len(self._links) > _KEPT:
                self._links.popitem(last=False)
        return True

    def forget(self, entries: Iterable[int]) -> None:
        """Use the links of entries no more."""
        with self._lock:
            for entry in entries:
                self._links.pop(entry, None)


def told_seconds(link: str) -> float:
    """Return how long a link says that it is good for, 0 where it says nothing."""
    told = parse_qs(urlsplit(link).query).get("X-Amz-Expires", ["0"])[-1]
    return float(told) if told.isascii() and told.isdigit() else 0.0
