"""Links to Drime's storage that are asked for before somebody wants them.

A download takes two answers, one after the other: Drime's, which is a link, and its storage's.
Where it is seen in what order somebody reads many items, the links of those that come next are
asked for beside what is read now. The orders are those of restic: about that in which items were
stored (a restore), and by the second digit of their names, those that share it in no order (check
and prune: `ListPacks` of its index goes by the lower half of an id's first byte).

No more requests are made than without it but for links that nobody uses: 16 in vain for each time
that somebody begins to read, and 64 at most where many of them are used.
"""

from __future__ import annotations

import itertools
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

_MOST = 64
"""The same where links were used."""

_WORTH = 2
"""Links that may be asked for when one was used."""

_NEAR = 16
"""Items apart in their order at which two that are read count as neighbours."""

_LOOKED_AT = 8
"""Reads that are looked at for an order."""

_IN_ORDER = 4
"""Neighbours among them, from which on there is one."""

_DEPTH, _MOST_DEPTH = 16, 64
"""Items ahead of the one that is read: so many at first, and where that is not enough."""

_SOON = 30.0
"""Seconds in which all links that are asked for in no order should be used at the present pace:
they are good for a minute at most."""

_ORDERED = 5.0
"""Seconds after which an order is made anew for items that are not in it."""

_ROWS = 4


class Order(NamedTuple):
    """Items in some order, and where each of them is, by its id; `begins` is where what is read in
    no order begins."""

    entries: Sequence[Entry]
    at: dict[int, int]
    begins: dict[int, int]


class Orders(NamedTuple):
    """The orders of items, as of a monotonic time."""

    stored: Order
    digits: Order
    since: float


@dataclass
class _Row:
    """What is read of items that belong together.

    Attributes:
        last: when something was read.
        recent: ids that were read last. times: when.
        read: ids of all that was read.
        asked: ids of links that were asked for and not used.
    """

    last: float
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=_LOOKED_AT))
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_LOOKED_AT))
    read: set[int] = field(default_factory=set)
    orders: Orders | None = None
    credit: int = CREDIT
    depth: int = _DEPTH
    asked: set[int] = field(default_factory=set)


class LinksAhead:
    """Looks at what is read. Safe for threads.

    Args:
        calls: the connection.
        neighbours: returns the items that are known of a row, with their names.
        submit: lets something run beside; None where that is not possible any more.
    """

    def __init__(
        self,
        calls: Calls,
        neighbours: Callable[[str], list[tuple[str, Entry]]],
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
        row.times.append(now)
        row.read.add(entry.id)
        if entry.id in row.asked:
            row.asked.discard(entry.id)
            row.credit = min(row.credit + _WORTH, _MOST)
        return self._following(row, name, entry)

    def _following(self, row: _Row, name: str, entry: Entry) -> list[Entry]:
        if len(row.recent) <= _IN_ORDER or not self._calls.links_last:
            return []
        if row.orders is None:
            row.orders = _ordered(self._neighbours(name))
        return self._ahead(row, row.orders, entry)

    def _ahead(self, row: _Row, orders: Orders, entry: Entry) -> list[Entry]:
        if entry.id not in orders.stored.at:  # it is newer than that
            if row.last - orders.since > _ORDERED:
                row.orders = None
            return []
        if row.credit > CREDIT and self._links.get(entry.id) is None:
            row.depth = min(2 * row.depth, _MOST_DEPTH)  # links came too late
        if _seen(row, orders.stored, entry):
            at = orders.stored.at[entry.id] + 1
            next_ones = orders.stored.entries[at : at + row.depth]
        elif _seen(row, orders.digits, entry):
            next_ones = _of_digit(row, orders.digits, entry)
        else:
            return []
        found = [
            each
            for each in next_ones
            if each.id not in row.read
            and each.id not in row.asked
            and self._links.get(each.id) is None
        ][: max(0, min(row.credit, _MOST - len(row.asked)))]
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


def _seen(row: _Row, order: Order, entry: Entry) -> bool:
    """Whether what was read last follows an order."""
    at, begins = order.at[entry.id], order.begins.get(entry.id)
    near = sum(
        0 < abs(order.at[each] - at) <= _NEAR
        or (begins is not None and each != entry.id and order.begins[each] == begins)
        for each in row.recent
        if each in order.at
    )
    return near >= _IN_ORDER


def _of_digit(row: _Row, order: Order, entry: Entry) -> Sequence[Entry]:
    """Return what is left of those that share their digit, and what follows them where that is
    little; nothing where they are not read fast enough."""
    begins = order.begins[entry.id]
    left: list[Entry] = []
    for each in itertools.islice(order.entries, begins, None):
        if len(left) >= row.depth and order.begins[each.id] != begins:
            break
        if each.id not in row.read:
            left.append(each)
    fast_enough = len(left) * (row.last - row.times[0]) <= _SOON * len(row.times)
    return left if fast_enough else ()


def _ordered(named: Sequence[tuple[str, Entry]]) -> Orders:
    stored = sorted(entry for _, entry in named)  # by id, which comes first: later ones are larger
    digit = {entry.id: name.rpartition("/")[2][1] for name, entry in named}
    by_digit = sorted(stored, key=lambda entry: digit[entry.id])
    at = _places(by_digit)
    first: dict[str, int] = {}
    for entry in by_digit:
        first.setdefault(digit[entry.id], at[entry.id])
    begins = {entry.id: first[digit[entry.id]] for entry in by_digit}
    return Orders(Order(stored, _places(stored), {}), Order(by_digit, at, begins), time.monotonic())


def _places(entries: Sequence[Entry]) -> dict[int, int]:
    return {entry.id: place for place, entry in enumerate(entries)}
