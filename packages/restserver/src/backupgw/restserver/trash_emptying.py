"""Letting go of what lies in the trash: what was kept long enough, or what an operator names."""

from __future__ import annotations

from collections.abc import Callable

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ObjectNotFound
from backupgw.kvstore.layers.trash_contents import Removed, Trash

from .trash_selection import Selection


def expire(
    place: Backend,
    *,
    trusted: bool = False,
    dry_run: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Removed:
    """Remove for good what was kept long enough.

    Args:
        trusted: an operator says that the clock is right.
        check: called now and then; ends it by raising.

    Raises:
        ClockDoubted: it may have jumped; nothing was removed.
    """
    trash = Trash(place)
    if dry_run:
        contents = trash.contents()
        return Removed(contents.expired, contents.expired_bytes)
    total = Removed(more=True)
    while total.more:
        check()
        step = trash.expire(trusted=trusted)
        total.items += step.items
        total.bytes += step.bytes
        total.more = step.more
    return total


def remove_selected(place: Backend, selection: Selection, *, dry_run: bool = False) -> Removed:
    """Remove for good what is selected, however short a time it was kept."""
    trash = Trash(place)
    removed = Removed()
    for entry in selection.entries(trash):
        if not dry_run:
            try:
                trash.remove(entry)
            except ObjectNotFound:
                continue  # it expired, or was restored
        removed.items += 1
        removed.bytes += entry.size
    return removed
