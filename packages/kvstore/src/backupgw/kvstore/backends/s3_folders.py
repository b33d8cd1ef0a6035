"""Folders where there are only keys.

A folder is there when a key lies below it: an item's, or that of an empty object that marks it.
What is written here gets such a mark for its folder, once: so a folder does not vanish with its
last item, and what was found out about a folder is not asked again.

The consoles of S3 services mark folders by objects whose names end in a slash. Those are understood
and not made: services that keep objects in files make a file of them, and then no folder can be.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from ..names import RESERVED_PREFIX
from .errors import BackendError
from .s3_requests import Requests

_MARK = f"{RESERVED_PREFIX}-folder"

_KNOWN = 10_000
"""Folders that are remembered."""


class Folders:
    """Makes folders, and remembers which there are.

    Args:
        requests: of the bucket.
        root: what every key begins with: "" or a path with a slash at its end.
    """

    def __init__(self, requests: Requests, root: str) -> None:
        self._requests = requests
        self._root = root
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def prefix(self, folder: str) -> str:
        """Return what the keys below a folder begin with."""
        return f"{self._root}{folder}/" if folder else self._root

    def mark(self, folder: str) -> str:
        """Return the key that marks a folder."""
        return self.prefix(folder) + _MARK

    def marks(self, folder: str) -> set[str]:
        """Return the keys of all that may mark a folder and is no item."""
        return {self.mark(folder), self.prefix(folder)}

    def make(self, folder: str) -> None:
        """Make sure that there is a folder, and that none above it is an item.

        Raises:
            BackendError: one is.
        """
        if not folder or self.knows(folder):
            return
        if self._requests.head(self.mark(folder), folder) is None:
            self.make(folder.rpartition("/")[0])
            if self._requests.head(f"{self._root}{folder}", folder) is not None:
                raise BackendError(f"{folder!r} is an item, not a folder")
            self._put_mark(folder)
        self._remember(folder)

    def missing(self, parent: str, folders: Sequence[str]) -> list[str]:
        """Return those of the folders in `parent` that are to be made yet; by one request, where
        there is not much in it.

        Raises:
            BackendError: one of them is an item.
        """
        self.make(parent)
        page = self._requests.page(self.prefix(parent), parent, folders=True)
        if page.after is not None:
            for folder in folders:
                self.make(folder)
            return []
        there = {prefix.removeprefix(self._root).rstrip("/") for prefix in page.prefixes}
        items = {found.key.removeprefix(self._root) for found in page.found}
        for folder in folders:
            if folder in items and folder not in there:
                raise BackendError(f"{folder!r} is an item, not a folder")
        return [folder for folder in folders if folder not in there]

    def make_missing(self, folder: str) -> None:
        """Make a folder that `missing` told of."""
        self._put_mark(folder)
        self._remember(folder)

    def _put_mark(self, folder: str) -> None:
        self._requests.put(self.mark(folder), b"", folder, plain=True)

    def _remember(self, folder: str) -> None:
        with self._lock:
            self._known[folder] = None
            self._known.move_to_end(folder)
            if len(self._known) > _KNOWN:
                self._known.popitem(last=False)

    def knows(self, folder: str) -> bool:
        """Whether it is known to be a folder."""
        with self._lock:
            return folder in self._known

    def forget(self, folder: str) -> None:
        """It was removed."""
        with self._lock:
            self._known.pop(folder, None)

    def forget_all(self) -> None:
        """Others may do anything meanwhile."""
        with self._lock:
            self._known.clear()
