"""Going through a namespace of a Store with all its nesting, one entry at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

from .backends.base import Backend, ItemInfo
from .backends.errors import ObjectNotFound
from .names import InvalidName, check_key
from .primary import Primary
from .statistics import Statistics


def items_below(
    backend: Backend,
    name: str,
    *,
    slots: AbstractContextManager[object],
    primary: Primary,
    statistics: Statistics,
) -> Iterator[ItemInfo]:
    """Yield the items below a folder; what is no valid key is left out.

    Args:
        slots: held while an entry is fetched, and not between two: the caller may take as long as
            it likes then, and use the store meanwhile.

    Raises:
        ObjectNotFound: there is no such folder; by the first `next`.
    """
    start = time.perf_counter_ns()
    with slots:
        entries = primary.call(lambda: backend.list(name))
    statistics.count("list_time", time.perf_counter_ns() - start)
    while True:
        with slots:
            start = time.perf_counter_ns()
            info = next(entries, None)
            statistics.count("list_time", time.perf_counter_ns() - start)
        if info is None:
            return
        if not _is_key(info.name):
            continue
        if not info.directory:
            yield info
            continue
        try:
            yield from items_below(
                backend,
                f"{name}/{info.name}" if name else info.name,
                slots=slots,
                primary=primary,
                statistics=statistics,
            )
        except ObjectNotFound:
            continue  # the folder vanished since it was listed


def _is_key(segment: str) -> bool:
    try:
        check_key(segment)
    except InvalidName:
        return False
    return True
