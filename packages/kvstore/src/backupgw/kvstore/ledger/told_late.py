"""What happened without an intent, and which counts of the place have seen it.

An intent is on record, and whoever ends it ends it once. What could not be intended is told by who
did it, perhaps long afterwards, and a count may have seen it by then. So who did it looks, while
nobody else can have the names yet, at what has been counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of a place at one moment.

    Attributes:
        finished: the number of the last one that came to its end, 0 for none.
        going: the number of the one in progress, None for none.
        passed: the names, of those asked for, whose folders that one has been in.
    """

    finished: int
    going: int | None
    passed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Then:
    """What was known of names when something had happened to them and they were still held.

    Attributes:
        counts: of their place.
        left_open: the intents for each of them that nobody had ended.
    """

    counts: Counts
    left_open: Mapping[str, Sequence[int]]

    def seen_by(self, now: Counts, name: str) -> bool | None:
        """Whether the count that has finished last saw what had happened to a name; None where
        nobody can tell."""
        if now.finished == self.counts.finished:
            return False
        if now.finished == self.counts.going:
            return False if name in self.counts.passed else None
        return True  # it was begun afterwards
