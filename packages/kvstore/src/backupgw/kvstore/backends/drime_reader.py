"""How a value is read out of Drime, or a part of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..layers.retry_reader import ReplacedMeanwhile
from . import drime_errors, drime_names
from .base import Reader
from .blocks_kept import KeptReader
from .body_reader import BodyReader, NoBytes
from .drime_calls import Download
from .drime_entry import Entry
from .drime_items import Items
from .errors import BackendConnectionError, BackendError, ObjectNotFound

_PIECE = 256 << 10


class DownloadBody:
    """The body of a download, from a byte of the item on.

    Args:
        name: the item's, for messages.
        download: the answer.
        start: the first byte wanted; what comes before it is read and thrown away.
    """

    def __init__(self, name: str, download: Download, start: int) -> None:
        self._answer = download.answer
        self._skip = start - (download.first or 0)
        if self._skip < 0:
            raise BackendError(f"{name}: the storage sends another range than was asked for")

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, fewer only at the end: each read costs whoever reads a thread."""
        if not self._at_start():
            return b""
        pieces: list[bytes] = []
        while size and (piece := self._answer.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, buffer: memoryview) -> int:
        """Fill a buffer's beginning with what has come; return how many bytes, 0 at the end."""
        return self._answer.read_into(buffer) if self._at_start() else 0

    def _at_start(self) -> bool:
        """Throw away what comes before the first byte wanted; False where the body ends there."""
        while self._skip:
            dropped = self._answer.read(min(self._skip, _PIECE))
            if not dropped:
                return False
            self._skip -= len(dropped)
        return True

    def close(self) -> None:
        """Let go of the connection."""
        self._answer.release()


class Opener:
    """Opens ranges of one value of an item.

    Args:
        items: of the place.
        name: the item's.
        told: told whether the storage honours ranges, whenever it was asked for one.
    """

    def __init__(self, items: Items, name: str, told: Callable[[bool], None]) -> None:
        self._items = items
        self._name = name
        self._told = told
        self._entry: Entry | None = None

    def kept(self, offset: int, size: int) -> Reader | None:
        """Open a range that is in memory; None where it is not."""
        if (entry := self._steady()) is None:
            return None
        start, wanted = _span(entry, offset, size)
        if not 0 < wanted < entry.size:
            return None
        data = self._items.blocks.get(entry.id, start, wanted)
        return None if data is None else KeptReader(data, entry.size, str(entry.id))

    def from_blocks(self, offset: int, size: int) -> Reader | None:
        """Open a range by the blocks that it lies in; None where it is to be read by itself."""
        if (entry := self._steady()) is None:
            return None
        start, wanted = _span(entry, offset, size)
        if not 0 < wanted < entry.size:
            return None

        def load(first: int, count: int) -> bytes:
            with self._open(entry, first, count) as reader:
                return b"".join(iter(partial(reader.read, count), b""))

        data = self._items.blocks.read(entry.id, start, wanted, entry.size, load)
        return None if data is None else KeptReader(data, entry.size, str(entry.id))

    def _steady(self) -> Entry | None:
        """Return the entry of an item that has one value for ever, None where that is not known."""
        if not drime_names.is_hash(self._name.rpartition("/")[2]):
            return None
        return self._items.known(self._name)

    def open(self, offset: int, size: int | None, version: str | None) -> Reader:
        """Open a range; with a version of the value that was opened before, or not at all."""
        if version is not None and self._entry is not None:
            try:
                return self._open(self._entry, offset, size)
            except ObjectNotFound as error:
                raise ReplacedMeanwhile(
                    f"{self._name}: it was replaced or deleted while it was read"
                ) from error
        entry = self._items.known(self._name)
        if entry is None or _reads_nothing(entry, offset, size):
            entry = self._items.find(self._name)
        while True:
            try:
                return self._open(entry, offset, size)
            except ObjectNotFound:
                gone = entry.id
                self._items.note(self._name, None)
            # It was replaced; and where there is nothing else, it was deleted.
            entry = self._items.find(self._name)
            if entry.id == gone:
                raise ObjectNotFound(self._name)

    def _open(self, entry: Entry, offset: int, size: int | None) -> Reader:
        self._entry, version = entry, str(entry.id)
        start, wanted = _span(entry, offset, size)
        if wanted == 0:
            return NoBytes(entry.size, version)
        end = start + wanted
        last = None if end == entry.size else end - 1
        calls, name = self._items.calls, self._name
        # A name that is a hash has one value for ever, so nobody can have replaced it.
        linked = drime_names.is_hash(name.rpartition("/")[2])
        if linked:
            self._items.links_ahead.reading(name, entry)
        download = calls.download(name, entry, start, last, linked=linked)
        try:
            if start or last is not None:
                self._told(download.first is not None)
            if download.total is not None and download.total != entry.size:
                raise BackendError(
                    f"{name}: Drime tells of {entry.size} bytes, and its storage of "
                    f"{download.total}",
                    retryable=True,
                )
            return BodyReader(
                name,
                DownloadBody(name, download, start),
                item_size=entry.size,
                remaining=wanted,
                version=version,
                errors=(BackendConnectionError,),
                translate=lambda error: drime_errors.of_transport(error, name),
            )
        except BaseException:
            download.answer.release()
            raise


def _span(entry: Entry, offset: int, size: int | None) -> tuple[int, int]:
    """Return the first byte and the number of bytes."""
    start = max(0, entry.size + offset) if offset < 0 else min(offset, entry.size)
    rest = entry.size - start
    return start, rest if size is None else max(0, min(size, rest))


def _reads_nothing(entry: Entry, offset: int, size: int | None) -> bool:
    """Whether no request would tell that the entry is gone."""
    return _span(entry, offset, size)[1] == 0
