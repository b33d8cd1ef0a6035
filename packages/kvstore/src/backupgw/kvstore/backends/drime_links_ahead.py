"""Links to Drime's storage that are asked for before somebody wants them.

A download takes two answers, one after the other: Drime's, which is a link, and its storage's.
Whoever reads many items mostly does so about in the order in which they were stored (a restore
does). Where that is seen, the links of those that come next are asked for beside what is read now.
No more requests are made than without it but for links that nobody uses: 16 in vain for each time
that somebody begins to read, and later one for each two that were of use.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import NamedTuple

from .drime_calls import Calls
from .drime_entry import Entry

PAUSE = 2.0
"""Seconds without a read after which it is looked anew whether there is an order."""

CREDIT = 16
"""Links that may be asked for in vain."""

_MOST_CREDIT = 64
_WORTH = 2
"""Links in vain that one which is used makes up for."""

_NEAR = 16
"""Items apart in their order at which two that are read count as neighbours."""

_LOOKED_AT = 8
"""Reads that are looked at for an order."""

_IN_ORDER = 4
"""Neighbours among them, from which on there is one."""

_DEPTH, _MOST_DEPTH = 16, 64
"""Items ahead of the one that is read: so many at first, and where that is not enough."""

_ORDERED = 5.0
"""Seconds after which an order is made anew for items that are not in it."""

_ROWS = 4


class Order(NamedTuple):
    """Items in the order in which they were stored, and where each of them is, by its id; as of a
    monotonic time."""

    entries: Sequence[Entry]
    at: dict[int, int]
    since: float


@dataclass
class _Row:
    """What is read of items that belong together.

    Attributes:
        last: when something was read.
        recent: ids that were read.
        asked: ids of links that were asked for and not used.
    """

    last: float
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=_LOOKED_AT))
    order: Order | None = None
    credit: int = CREDIT
    depth: int = _DEPTH
    asked: set[int] = field(default_factory=set)


class LinksAhead:
    """Looks at what is read. Safe for threads.

    Args:
        calls: the connection.
        neighbours: returns the items that are known of a row.
        submit: lets something run beside; None where that is not possible any more.
    """

    def __init__(
        self,
        calls: Calls,
        neighbours: Callable[[str], list[Entry]],
        submit: Callable[[Callable[[], None]], Future[None] | None],
    ) -> None:
        self._calls = calls
        calls.on_link = self.linked
        self._links = calls.links
        self._neighbours = neighbours
        self._submit = submit
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._coming: dict[int, Future[None]] = {}
        self._useless = False
        """Whether Drime has answered by no link, or by one that cannot be used later."""

    def reading(self, name: str, entry: Entry) -> None:
        """Note that an item is about to be read; wait for its link if that is on its way."""
        if self._useless:
            return
        with self._lock:
            wanted = self._noted(row_of(name), entry)
            coming = self._coming.get(entry.id)
        for each in wanted:
            self._begin(each)
        if coming is not None:
            wait([coming])

    def linked(self, name: str, entry: Entry) -> None:
        """Note that Drime has told the link of an item that is being read: of those that were read
        at the same moment, the first to be told knows that links are to be had."""
        if self._useless:
            return
        with self._lock:
            row = self._rows.get(row_of(name))
            wanted = [] if row is None else self._following(row, row_of(name), entry)
        for each in wanted:
            self._begin(each)

    def _noted(self, name: str, entry: Entry) -> list[Entry]:
        """Note a read; return the items whose links are to be asked for now."""
        now = time.monotonic()
        row = self._rows.get(name)
        if row is None or now - row.last > PAUSE:
            row = self._rows[name] = _Row(now)
            while len(self._rows) > _ROWS:
                self._rows.popitem(last=False)
        self._rows.move_to_end(name)
        row.last = now
        if entry.id in row.recent:
            return []
        row.recent.append(entry.id)
        if entry.id in row.asked:
            row.asked.discard(entry.id)
            row.credit = min(row.credit + _WORTH, _MOST_CREDIT)
        return self._following(row, name, entry)

    def _following(self, row: _Row, name: str, entry: Entry) -> list[Entry]:
        if len(row.recent) <= _IN_ORDER or not self._calls.links_last:
            return []
        if row.order is None:
            row.order = _ordered(self._neighbours(name))
        return self._ahead(row, row.order, entry)

    def _ahead(self, row: _Row, order: Order, entry: Entry) -> list[Entry]:
        at = order.at.get(entry.id)
        if at is None:  # it is newer than that
            if row.last - order.since > _ORDERED:
                row.order = None
            return []
        places = [order.at[each] for each in row.recent if each in order.at]
        if sum(0 < abs(each - at) <= _NEAR for each in places) < _IN_ORDER:
            return []
        if row.credit > CREDIT and self._links.get(entry.id) is None:
            row.depth = min(2 * row.depth, _MOST_DEPTH)  # links came too late
        found = [
            each
            for each in order.entries[at + 1 : at + 1 + row.depth]
            if each.id not in row.recent
            and each.id not in row.asked
            and self._links.get(each.id) is None
        ][: row.credit]
        row.credit -= len(found)
        row.asked |= {each.id for each in found}
        return found

    def _begin(self, entry: Entry) -> None:
        # Under the lock, so that it cannot end before it is noted.
        with self._lock:
            coming = self._submit(lambda: self._fetch(entry))
            if coming is not None:
                self._coming[entry.id] = coming

    def _fetch(self, entry: Entry) -> None:
        try:
            if not self._calls.ask_link(entry):
                self._useless = True
        finally:
            with self._lock:
                self._coming.pop(entry.id, None)


def row_of(name: str) -> str:
    """Return what items belong together with one: those of its folder, or of all the folders that
    a repository spreads its packs over by their first two digits."""
    folder, _, segment = name.rpartition("/")
    around, _, last = folder.rpartition("/")
    return f"{around}/" if len(last) == len("ab") and segment.startswith(last) else f"{folder}/"


def _ordered(entries: Sequence[Entry]) -> Order:
    ordered = sorted(entries)  # by id, which comes first: later ones are larger
    at = {entry.id: place for place, entry in enumerate(ordered)}
    return Order(ordered, at, time.monotonic())
