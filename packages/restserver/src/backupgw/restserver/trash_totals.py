"""How much of the trash is whose."""

from __future__ import annotations

from dataclasses import dataclass, field

from backupgw.kvstore.layers.trash_contents import Entry

_MOST_NAMES = 100


@dataclass(slots=True)
class Totals:
    """What was deleted of one repository. Times are seconds since the epoch.

    Attributes:
        by: who deleted it; a hundred names at most.
    """

    objects: int = 0
    bytes: int = 0
    first: float | None = None
    last: float | None = None
    by: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Add an item of the trash."""
        self.objects += 1
        self.bytes += entry.size
        self.first = min(self.first or entry.when, entry.when)
        self.last = max(self.last or entry.when, entry.when)
        if entry.who and len(self.by) < _MOST_NAMES:
            self.by.add(entry.who)
