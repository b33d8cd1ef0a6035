"""One stream to several places at once; one that fails does not stop the others.

Each place has a thread that writes, and a few pieces waiting for it: the slowest place that still
works sets the pace, and memory stays bounded.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Mapping
from enum import Enum

from backupgw.kvstore.backends.base import Backend, Writer
from backupgw.kvstore.backends.errors import BackendError

_WAITING = 4
"""Pieces that may wait for a place: about a mebibyte each."""


class _End(Enum):
    COMMIT = "commit"
    ABORT = "abort"


class AllFailed(BackendError):
    """No place is left to write to."""


class _Lane:
    """The way to one place."""

    def __init__(self, place: Backend, item: str) -> None:
        self.error: Exception | None = None
        self.written = 0
        self._place = place
        self._item = item
        self._pieces: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._end: _End | None = None
        self._thread = threading.Thread(target=self._run, name=f"backup-{item}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        writer: Writer | None = None
        try:
            writer = self._place.open_writer(self._item, if_absent=True)
            while (piece := self._next()) is not None:
                writer.write(piece)
                self.written += len(piece)
            if self._end is _End.COMMIT:
                writer.commit()
            else:
                writer.abort()
        except Exception as error:  # noqa: BLE001 - told as this place's result
            if writer is not None:
                with contextlib.suppress(BackendError):
                    writer.abort()
            with self._changed:
                self.error = error
                self._pieces.clear()
                self._changed.notify_all()

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._end is not None)
            if self._end is _End.ABORT or not self._pieces:
                return None
            self._changed.notify_all()
            return self._pieces.popleft()

    def put(self, piece: bytes) -> None:
        """Wait for room, unless the place has failed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._pieces) < _WAITING or self.error is not None)
            if self.error is None:
                self._pieces.append(piece)
                self._changed.notify_all()

    def end(self, how: _End) -> None:
        """Commit behind the last piece, or give up at once."""
        with self._changed:
            self._end = how
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until the place has what it was given, or has forgotten it."""
        self._thread.join()


class Lanes(Writer):
    """A writer to one item at several places.

    `commit` never raises for some of the places: `errors` tells what became of each.

    Args:
        places: open, by name.
        item: the name that all give it; must be free.
    """

    def __init__(self, places: Mapping[str, Backend], item: str) -> None:
        self._lanes = {name: _Lane(place, item) for name, place in places.items()}
        self._ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Raises AllFailed once nobody takes anything any more."""
        piece = bytes(data)
        for lane in self._lanes.values():
            lane.put(piece)
        self._require_one()

    def commit(self) -> None:
        self._require_one()
        self._finish(_End.COMMIT)

    def abort(self) -> None:
        if not self._ended:
            self._finish(_End.ABORT)

    def _finish(self, how: _End) -> None:
        self._ended = True
        for lane in self._lanes.values():
            lane.end(how)
        for lane in self._lanes.values():
            lane.join()

    def _require_one(self) -> None:
        if all(lane.error is not None for lane in self._lanes.values()):
            raise AllFailed("no place is left to write to")

    @property
    def errors(self) -> dict[str, Exception | None]:
        """What went wrong at each place, None where nothing did."""
        return {name: lane.error for name, lane in self._lanes.items()}

    @property
    def written(self) -> dict[str, int]:
        """Bytes that each place took."""
        return {name: lane.written for name, lane in self._lanes.items()}
