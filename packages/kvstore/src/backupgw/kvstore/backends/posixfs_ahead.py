"""Entries of a folder looked at several at a time, where the disk has to be asked for each.

A folder's order is none in which its files lie on the disk. What the system's caches have is told
in microseconds; for what they do not have the disk is asked, entry by entry, and a page of a
thousand takes a good part of a second. A disk that is asked for many at once takes a fraction, and
less if those come together that lie together: what it reads for one entry holds others.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

SLOW = 0.000_1
"""Seconds in which the caches have answered."""
SAMPLE = 16
"""Entries of which one is timed."""
AT_ONCE = 16
"""Questions to the disk."""
BATCH = 1024
"""Entries looked at ahead of who asks for them, at most."""

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None  # its threads are the parent's


os.register_at_fork(after_in_child=_forget_pool)


def looked_at(found: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    """Yield all entries, in their order; `stat(follow_symlinks=False)` of each is known, or quick.

    One that cannot be looked at says so when its own `stat` is asked.
    """
    for entry in found:
        begun = time.perf_counter()
        _look([entry])
        slow = time.perf_counter() - begun > SLOW
        yield entry
        if slow:
            batch = list(islice(found, BATCH))
            _look_together(batch)
            yield from batch
        else:
            yield from islice(found, SAMPLE - 1)


def _look(entries: Sequence[os.DirEntry[str]]) -> None:
    for entry in entries:
        with contextlib.suppress(OSError):
            entry.stat(follow_symlinks=False)


def _look_together(entries: Sequence[os.DirEntry[str]]) -> None:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(AT_ONCE, "look-ahead")
    on_disk = sorted(entries, key=os.DirEntry.inode)
    each = -(-len(on_disk) // AT_ONCE) or 1
    starts = range(0, len(on_disk), each)
    for _ in _pool.map(_look, [on_disk[start : start + each] for start in starts]):
        pass
