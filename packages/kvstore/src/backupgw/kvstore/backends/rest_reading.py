"""Reading from a borgstore server: what range to ask for, and where its answer lies in the item."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus as Http

from .base import ItemInfo, Reader
from .errors import BackendError, ObjectNotFound
from .rest_answers import ServerFailed, content_range
from .rest_incoming import DRAIN, Answer
from .rest_transfers import RestReader


class Reads:
    """Opens readers.

    Args:
        server: its name in messages.
        get: asks for an item, or the range of it that is the value of a Range header; raises for
            any answer but yes.
        info: tells about an item.
        tries: how often a reader asks again when its connection breaks.
    """

    def __init__(
        self,
        server: str,
        get: Callable[[str, str | None], Answer],
        info: Callable[[str], ItemInfo],
        tries: int,
    ) -> None:
        self._server = server
        self._get = get
        self._info = info
        self._tries = tries

    def open(self, name: str, offset: int, size: int | None) -> Reader:
        """Start reading as `Backend.open_reader` does."""
        if size == 0 or (offset < 0 and size is not None and not self._small(offset, size)):
            return self._located_reader(name, offset, size)
        wanted = _range(offset, size)
        try:
            answer = self._get(name, wanted)
        except ServerFailed:
            if offset >= 0:
                raise
            # borgstore's server fails where that counts back beyond the item's beginning.
            return self._located_reader(name, offset, size)
        announced = answer.left
        if announced is None:
            answer.discard()
            raise BackendError(f"{self._server}: {name} came without its length")
        total: int | None = None
        first = max(offset, 0)
        if (span := content_range(answer.header("Content-Range"))) is not None:
            first, total = span
        elif answer.status == Http.OK:
            if wanted is not None and announced:
                answer.discard()
                raise BackendError(f"{self._server} does not understand ranges")
            total = announced
        remaining = announced if size is None else min(announced, size)
        if offset < 0 and span is None:
            total = self._size(name)
            first = max(total + offset, 0)
        resume = partial(self._resume, name, total)
        size_of = total if total is not None else partial(self._size, name)
        return RestReader(answer, first, remaining, size_of, resume, self._tries)

    @staticmethod
    def _small(offset: int, size: int) -> bool:
        """Whether a part counted from the end can be had with what follows it."""
        return -offset - size <= DRAIN

    def _located_reader(self, name: str, offset: int, size: int | None) -> Reader:
        """Read a part whose place has to be found out first."""
        info = self._info(name)
        if not info.exists or info.directory:
            raise ObjectNotFound(name)
        first = max(info.size + offset, 0) if offset < 0 else offset
        rest = max(info.size - first, 0)
        wanted = rest if size is None else min(size, rest)
        if not wanted:
            return _Nothing(info.size)
        resume = partial(self._resume, name, info.size)
        return RestReader(resume(first, wanted), first, wanted, info.size, resume, self._tries)

    def _resume(self, name: str, total: int | None, first: int, wanted: int) -> Answer:
        answer = self._get(name, _range(first, wanted))
        span = content_range(answer.header("Content-Range"))
        if answer.left != wanted or (span is not None and total is not None and span[1] != total):
            answer.discard()
            raise BackendError(f"{name}: it was replaced while it was read", retryable=True)
        return answer

    def _size(self, name: str) -> int:
        info = self._info(name)
        if not info.exists or info.directory:
            raise ObjectNotFound(name)
        return info.size


class _Nothing(Reader):
    """Reads no byte of an item that exists."""

    remaining = 0

    def __init__(self, item_size: int) -> None:
        self.item_size = item_size

    def read(self, size: int) -> bytes:  # noqa: ARG002 - there is nothing, whatever the size
        return b""

    def close(self) -> None:
        """Nothing is held."""


def _range(offset: int, size: int | None) -> str | None:
    if offset < 0:
        return f"bytes={offset}"
    if size is not None:
        return f"bytes={offset}-{offset + size - 1}"
    return f"bytes={offset}-" if offset else None
