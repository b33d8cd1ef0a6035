"""Going through all that lies below a folder of a place, in memory that does not grow with it.

Depth first, in the order in which the place lists. A listing stays open while its subfolders are
gone through, so no list of entries is held; from a certain depth on, where open listings would use
up the descriptors of a process, the subfolders' names of one folder are held instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .backends.base import Backend, ItemInfo
from .backends.errors import BackendError, ObjectNotFound
from .names import joined

MOST_OPEN = 64
"""Listings that are open at once."""


@dataclass(frozen=True, slots=True)
class Found:
    """An item or a folder.

    Attributes:
        path: its full name in the place.
        info: what the listing said.
        left: False for an item, and for a folder before what is in it; True for a folder after it.
        entries: for a folder that is left, how many entries it was seen to have.
    """

    path: str
    info: ItemInfo
    left: bool = False
    entries: int = 0


@dataclass(slots=True)
class _Level:
    path: str
    info: ItemInfo
    listing: Iterator[ItemInfo]
    entries: int = 0


def walk(
    place: Backend,
    folder: str = "",
    *,
    on_error: Callable[[str, BackendError], None] | None = None,
) -> Iterator[Found]:
    """Yield everything below `folder`, each subfolder before and after what is in it.

    A subfolder that vanishes meanwhile counts as empty.

    Args:
        on_error: called with the name of a subfolder that cannot be listed, which is then left
            out; None lets the error out.

    Raises:
        ObjectNotFound: there is no such folder.
        BackendError: it cannot be listed.
    """
    top = ItemInfo(folder, exists=True, size=0, directory=True)
    levels = [_Level(folder, top, place.list(folder))]
    try:
        while levels:
            level = levels[-1]
            info = _next(level, top=len(levels) == 1, on_error=on_error)
            if info is None:
                levels.pop()
                if levels:
                    yield Found(level.path, level.info, left=True, entries=level.entries)
                continue
            level.entries += 1
            path = joined(level.path, info.name)
            yield Found(path, info)
            if info.directory:
                listing = _listing(place, path, close_early=len(levels) >= MOST_OPEN)
                levels.append(_Level(path, info, listing))
    finally:
        for level in levels:
            _close(level.listing)


def _next(
    level: _Level, *, top: bool, on_error: Callable[[str, BackendError], None] | None
) -> ItemInfo | None:
    try:
        return next(level.listing, None)
    except ObjectNotFound:
        if top:
            raise
        return None
    except BackendError as error:
        if top or on_error is None:
            raise
        on_error(level.path, error)
        return None


def _listing(place: Backend, folder: str, *, close_early: bool) -> Iterator[ItemInfo]:
    """List a folder; errors come with the first `next`. With `close_early` the place's listing has
    ended before the first folder is told."""
    if not close_early:
        yield from place.list(folder)
        return
    folders = []
    for info in place.list(folder):
        if info.directory:
            folders.append(info)
        else:
            yield info
    yield from folders


def _close(listing: Iterator[ItemInfo]) -> None:
    close = getattr(listing, "close", None)
    if close is not None:
        close()
