"""A listing that goes on after an error: nothing twice, and all that was there all the time.

A place lists in any order, and another one each time, so the listing is begun anew and what was
handed out already is left out. What was handed out is known by a 64-bit hash of each name, which
nobody can foresee: eight bytes an entry while all goes well, some twenty more after an error. Of
a million entries, one is missing for a collision in one of some 20 million listings that broke off.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from ..backends.base import ItemInfo
from ..backends.errors import BackendError
from .retry_schedule import Trials


def go_on_listing(begin: Callable[[], Iterator[ItemInfo]], trials: Trials) -> Iterator[ItemInfo]:
    """Yield the entries that `begin` lists, each once.

    Args:
        begin: starts the listing, from its beginning each time.
        trials: how often; each new entry counts as success, so a long listing may fail often.
    """
    handed_out = array("q")
    known = _Known(handed_out)
    entries: Iterator[ItemInfo] | None = None
    while True:
        try:
            if entries is None:
                entries = begin()
            info = next(entries, None)
        except BackendError as error:
            trials.pause(error)
            known = _Known(handed_out)
            entries = None
            continue
        if info is None:
            return
        mark = hash(info.name) or 1  # 0 marks an empty slot
        if mark not in known:
            handed_out.append(mark)
            trials.succeeded()
            yield info


class _Known:
    """A set of 64-bit numbers other than 0, in at most 24 bytes each: a hash table, probed in
    order. A set of Python's takes four times as much."""

    def __init__(self, marks: array[int]) -> None:
        size = 1 << max(len(marks) * 4 // 3, 1).bit_length() if marks else 0
        self._mask = size - 1
        self._slots = array("q", bytes(8 * size))
        for mark in marks:
            self._slots[self._slot_of(mark)] = mark

    def _slot_of(self, mark: int) -> int:
        """Return where a number lies, or the empty slot where it would."""
        slot = mark & self._mask
        while self._slots[slot] not in (0, mark):
            slot = (slot + 1) & self._mask
        return slot

    def __contains__(self, mark: int) -> bool:
        return self._mask >= 0 and self._slots[self._slot_of(mark)] == mark
