"""Reading a folder of Drime's to its real end.

Drime lists by page number, tells nothing of how many pages there are, and in large folders repeats
the last one for ever. While entries come and go, numbers alone would leave some out. So each page
begins a little before the end of the one before it, and what follows the last entry that is known
is what is new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from .drime_calls import PER_PAGE, Calls
from .drime_entry import Entry, Page
from .errors import BackendError

_REMEMBERED = 3 * PER_PAGE
"""Entries before the end that are known again: as many may vanish between two pages."""

_STUCK = 50
"""Pages in a row that lead nowhere before a listing gives up."""


def all_entries(
    calls: Calls, what: str, parents: Sequence[int], *, folders: bool = False
) -> Iterator[Entry]:
    """Yield what lies in the folders; an entry may come twice, and none that stays is left out.

    Args:
        what: for messages.
        folders: only folders.
    """

    def page(number: int, size: int) -> Page:
        return calls.repeated(lambda: calls.page(what, parents, number, size, folders=folders))

    found = page(1, PER_PAGE)
    yield from found.entries
    if not found.last:
        yield from _rest(what, page, found)


def _rest(what: str, page: Callable[[int, int], Page], found: Page) -> Iterator[Entry]:
    most = found.size
    recent: deque[int] = deque((entry.id for entry in found.entries), _REMEMBERED)
    at = len(found.entries)
    """How many entries lie before what is still to come, as far as is known."""
    idle = 0
    while not found.last:
        number, size = _window(at, most)
        found = page(number, size)
        if found.size < size:  # less in a page than was asked for
            most, found = found.size, found._replace(last=False)
            continue
        start = (number - 1) * size
        known = set(recent)
        ids = [entry.id for entry in found.entries]
        anchor = next((i for i in reversed(range(len(ids))) if ids[i] in known), None)
        if anchor is None and start > 0:
            at = max(start, 1)  # more vanished than the pages overlap: go back
            found = found._replace(last=False)
            new: list[Entry] = []
        else:
            new = found.entries[0 if anchor is None else anchor + 1 :]
            at = start + len(ids)
        recent.extend(entry.id for entry in new)
        yield from new
        if not new and anchor is not None and len(ids) < size:
            return
        idle = 0 if new else idle + 1
        if idle > _STUCK:
            raise BackendError(f"{what}: it changes faster than it can be listed", retryable=True)


def _window(at: int, most: int) -> tuple[int, int]:
    """Return the page number and size that show the most beyond `at` entries, and at least the one
    before."""
    before = max(at - 1, 0)
    size = max(range(most, most // 2, -1), key=lambda size: (before // size + 1) * size)
    return before // size + 1, size
