"""Lists of folders that lie side by side, several on their way at a time.

A repository has 256 folders of packs. One after the other they would take 256 times the way to the
place and back; and where a place asks to be asked again, as busy services do, its pauses add up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ObjectNotFound

AT_ONCE = 8
"""Folders that are listed at a time, ahead of the one that is handed out."""

MOST = 4096
"""Entries of a folder that are held until it is its turn; a repository of a million packs has fewer
in each. A folder with more is listed when it is its turn, and so are those after it: nothing is
left half-way meanwhile, for that may keep one of the place's connections."""

Sizes = Iterator[tuple[str, int]]
"""Names and sizes in bytes."""


class FoldersAhead:
    """The folders of a row and what is in each, in the row's order. Used by one thread at a time.

    Args:
        row: what each folder is known by, and its name in the place.
    """

    def __init__(self, backend: Backend, row: Iterator[tuple[str, str]]) -> None:
        self._backend = backend
        self._row = row
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="listing")
        self._coming: deque[tuple[str, str, Future[Sizes | None]]] = deque()
        self._ahead = True

    def next(self) -> tuple[str, Sizes] | None:
        """Return the next folder that exists, None after the last.

        Raises:
            BackendError: it cannot be listed, or the row cannot.
        """
        while (following := self._following()) is not None:
            known, folder, coming = following
            try:
                found = coming.result() if coming is not None else None
                if found is None:
                    self._ahead = False
                    found = self._backend.list_sizes(folder)
            except ObjectNotFound:
                continue  # removed while we were listing
            return known, found
        return None

    def _following(self) -> tuple[str, str, Future[Sizes | None] | None] | None:
        if self._ahead:
            for known, folder in islice(self._row, AT_ONCE - len(self._coming)):
                self._coming.append((known, folder, self._pool.submit(self._listed, folder)))
        if self._coming:
            return self._coming.popleft()
        following = next(self._row, None)
        return (*following, None) if following is not None else None

    def _listed(self, folder: str) -> Sizes | None:
        """Return what is in a folder, None where that is too much to be held."""
        found = self._backend.list_sizes(folder)
        entries = list(islice(found, MOST + 1))
        if len(entries) <= MOST:
            return iter(entries)
        _close(found)
        return None

    def close(self) -> None:
        """Ask for nothing more. What is on its way comes to its end by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._coming.clear()
        _close(self._row)


def _close(reading: Iterator[object]) -> None:
    close = getattr(reading, "close", None)
    if close is not None:
        close()
