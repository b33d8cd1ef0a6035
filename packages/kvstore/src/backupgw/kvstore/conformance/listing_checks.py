"""Lists stream, and bear what happens meanwhile."""

from __future__ import annotations

import gc
import time
from itertools import islice

from .memory import measured
from .subject import Ground
from .suite import check
from .verdicts import require

_ALLOWED = 4 << 20
"""Bytes of Python memory that a list may hold: a page or two of a remote place's entries."""

_SHARE = 0.75
"""Of what all entries together take; a list that holds them all takes 1."""

_SAMPLE = 20_000
"""Entries that are held to see what they take."""

_REMEMBERED = 1024
"""Bytes that an entry may take which a place remembers on purpose."""

_EXCHANGED = 64
"""Bytes more for each while others take their place: Python's dictionaries are made anew then."""


@check()
def list_is_exact(at: Ground) -> None:
    """A list has every item and folder once, with its size, and nothing from deeper down."""
    for number in range(100):
        at.put(f"item{number:03}", bytes(number))
    at.put("folder/deeper/item", b"value")
    entries = [(info.name, info.size, info.directory) for info in at.backend.list(at.folder)]
    items = sorted(entry[:2] for entry in entries if not entry[2])
    require(items == [(f"item{n:03}", n) for n in range(100)], f"{len(items)} items are listed")
    folders = [entry[0] for entry in entries if entry[2]]
    require(folders == ["folder"], f"the folders are {folders}")
    sizes = sorted(at.backend.list_sizes(at.folder))
    require(sizes == items, f"{len(sizes)} items are listed with their sizes")
    at.backend.mkdir(at.name("empty"))
    require(at.names("empty") == [], "an empty folder lists something")


@check()
def list_streams(at: Ground) -> str:
    """A list of 20,000 entries (soak: 200,000) is handed out without being held in memory."""
    count = at.subject.count(short=20_000, soak=200_000)
    count = min(count, at.subject.listed or count)
    # One measurement around all: what is let go of counts only if it was counted when it came.
    with at.filled([f"{number:064}" for number in range(count)]), measured():
        if remembers := at.subject.remembers:
            with measured() as filled:
                _walk(at, count)
            _require_at_most(_ALLOWED + remembers * _REMEMBERED, filled.peak, count)
        with measured() as streamed:
            first = _walk(at, count)
        with measured() as held:
            some = [*islice(at.backend.list(at.folder), _SAMPLE)]
    allowed = min(_ALLOWED, held.kept / len(some) * count * _SHARE)
    _require_at_most(allowed + remembers * _EXCHANGED, streamed.peak, count)
    return f"{count} entries, the first after {first:.1f} ms, {streamed.peak >> 10} KiB"


def _walk(at: Ground, count: int) -> float:
    """List all; return after how many milliseconds the first entry came."""
    start = time.perf_counter()
    entries = at.backend.list(at.folder)
    next(entries)
    first = (time.perf_counter() - start) * 1000
    listed = 1 + sum(1 for _ in entries)
    require(listed == count, f"{listed} of {count} entries came")
    return first


def _require_at_most(allowed: float, peak: int, count: int) -> None:
    require(peak <= allowed, f"{count} entries took {peak >> 10} KiB of memory")


@check()
def entries_may_vanish(at: Ground) -> None:
    """A list goes on when entries vanish or come meanwhile; what stays is always listed."""
    names = {f"item{number:04}" for number in range(600)}
    for name in names:
        at.put(name, b"x")
    entries = at.backend.list(at.folder)
    seen = [next(entries).name for _ in range(5)]
    vanishing = {name for name in names if name not in seen and int(name[4:]) % 2}
    for number, name in enumerate(sorted(vanishing)):
        at.backend.delete(at.name(name))
        if number % 10 == 0:
            at.put(f"new{number}", b"x")
    seen += [info.name for info in entries]
    require(len(seen) == len(set(seen)), "an entry came twice")
    require(names - vanishing <= set(seen), "an entry that stayed was not listed")
    strange = [name for name in seen if name not in names and not name.startswith("new")]
    require(not strange, f"strange entries: {strange[:3]}")


@check()
def abandoned_lists_are_harmless(at: Ground) -> None:
    """Lists that nobody finishes hold nothing up and leak nothing that would run out."""
    for name in "abc":
        at.put(name, b"x")
    for _ in range(at.subject.count(short=2000, soak=2000)):
        next(at.backend.list(at.folder))
    gc.collect()
    require(at.names() == ["a", "b", "c"], "after abandoned lists the list is wrong")
    at.backend.delete(at.name("b"))
    require(at.names() == ["a", "c"], "after abandoned lists the list is stale")


@check("mtime")
def mtime_is_told(at: Ground) -> None:
    """info and list tell the same time of change, in seconds since the epoch; newer is not less."""
    name = at.put("item", b"one")
    told = at.backend.info(name).mtime
    (listed,) = at.backend.list(at.folder)
    require(abs(listed.mtime - told) < 2, f"listed as {listed.mtime}, told as {told}")
    day = 24 * 3600
    require(abs(told - time.time()) < day, f"{told} is not now in seconds since the epoch")
    at.put("item", b"two")
    require(at.backend.info(name).mtime >= told, "a replacement is older than what it replaced")
