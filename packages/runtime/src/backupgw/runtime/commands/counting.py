"""How much there is to do, counted beside the doing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend


class Count:
    """Counts the items of a folder, so that a bar can tell what is left.

    Args:
        wanted: False: nothing is counted.

    Attributes:
        bytes, items: None until everything was counted.
    """

    def __init__(self, place: Backend, folder: str, *, wanted: bool) -> None:
        self._place = place
        self._folder = folder
        self._ended = threading.Event()
        self.bytes: int | None = None
        self.items: int | None = None
        self._wanted = wanted
        self._thread = threading.Thread(target=self._run, name="count", daemon=True)

    def __enter__(self) -> None:
        if self._wanted:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        from backupgw.kvstore.backends.errors import BackendError
        from backupgw.kvstore.walking import walk

        size = items = 0
        try:
            for found in walk(self._place, self._folder, on_error=lambda *_: None):
                if self._ended.is_set():
                    return
                if not found.info.directory:
                    size += found.info.size
                    items += 1
        except BackendError:
            return  # the work meets it too, and tells
        self.items, self.bytes = items, size
