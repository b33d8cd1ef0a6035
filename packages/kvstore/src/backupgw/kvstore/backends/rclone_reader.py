"""Reading an item of an rclone remote, by HTTP where rclone serves it (`--rc-serve`)."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus as Http
from typing import IO

from ..layers.retry_reader import ReplacedMeanwhile
from .base import CHUNK, Reader
from .body_reader import NoBytes
from .errors import BackendConnectionError, BackendError, ObjectNotFound
from .rclone_calls import AS_TOLD, LONG, Calls, seconds
from .rest_incoming import Answer
from .rest_transfers import RestReader

_TRIES = 3
_FIRST_TRIES = 12
_FIRST = 1 << 20
"""Bytes that are read before anything is handed out."""

_SETTLED = 300.0
"""Seconds after which a value that is replaced has another time of change, whatever the clocks say:
remotes tell whole seconds."""

_YES = frozenset({int(Http.OK), int(Http.PARTIAL_CONTENT)})
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


def open_item(calls: Calls, name: str, offset: int, size: int | None) -> Reader:
    """Start reading; arguments and errors as `Backend.open_reader`."""
    if not calls.readable(name):
        return _CopiedReader(calls, name, offset, size)
    for left in reversed(range(_FIRST_TRIES)):
        try:
            return _opened(calls, name, offset, size)
        except (BackendConnectionError, ReplacedMeanwhile):
            if not left:
                raise
    raise AssertionError("the last attempt returns or raises")


def _opened(calls: Calls, name: str, offset: int, size: int | None) -> Reader:
    if size == 0 or offset < 0:
        return _located(calls, name, offset, size)
    answer = calls.get(name, _range(offset, size))
    span = _span(answer)
    if span is None:
        if answer.status in _YES or answer.status == Http.REQUESTED_RANGE_NOT_SATISFIABLE:
            answer.discard()
            return _located(calls, name, offset, size)
        error = calls.refusal(answer, name)
        if offset:  # some remotes have no words for a part beyond the end
            return _located(calls, name, offset, size, error)
        raise error
    return _reading(calls, name, answer, span)


def _located(
    calls: Calls, name: str, offset: int, size: int | None, error: BackendError | None = None
) -> Reader:
    """Read a part of which it has to be found out first where it lies."""
    item = calls.item(name)
    if item is None:
        raise ObjectNotFound(name)
    total = int(item["Size"])
    first = max(total + offset, 0) if offset < 0 else offset
    wanted = max(total - first, 0) if size is None else max(min(size, total - first), 0)
    if not wanted:
        return NoBytes(total)
    if error is not None:
        raise error
    answer = calls.get(name, _range(first, wanted))
    span = _span(answer)
    if span is None:
        raise calls.refusal(answer, name)
    return _reading(calls, name, answer, span)


def _reading(calls: Calls, name: str, answer: Answer, span: tuple[int, int, int]) -> Reader:
    """Return a reader of what an answer brings."""
    first, wanted, total = span
    stamp = answer.header("Last-Modified") or ""

    def confirm() -> None:
        """rclone looks an item up, and then opens it: between, it may have been replaced."""
        item = calls.item(name)
        if item is None or item.get("Size") != total or int(seconds(item)) != _moment(stamp):
            raise ReplacedMeanwhile(f"{name}: it was replaced while it was read")

    def resume(at: int, left: int) -> _Begun:
        if time.time() - _moment(stamp) < _SETTLED:
            raise BackendError(
                f"{name}: the connection broke, and a value this young may be another by now",
                retryable=True,
            )
        again = calls.get(name, _range(at, left))
        if again.status not in _YES:
            raise calls.refusal(again, name)
        if _span(again) != (at, left, total) or again.header("Last-Modified") != stamp:
            again.discard()
            raise ReplacedMeanwhile(f"{name}: it was replaced while it was read")
        return _Begun(again, left, confirm if calls.confirming else None)

    begun = _Begun(answer, wanted, confirm if calls.confirming else None)
    return RestReader(begun, first, wanted, total, resume, _TRIES)


class _Begun:
    """An answer of which the first bytes were read already: so rclone has the value open, and
    whether it is the one that it had looked up is known before anybody sees any of it.

    Args:
        wanted: its bytes.
        confirm: raises when it is another one; asked once the first bytes are there.
    """

    def __init__(self, answer: Answer, wanted: int, confirm: Callable[[], None] | None) -> None:
        self._answer = answer
        self._left = wanted
        self._held = b""
        pieces = [self._next(_FIRST)]
        while self._left and sum(map(len, pieces)) < _FIRST:
            pieces.append(self._next(_FIRST))
        self._held = b"".join(pieces)
        if confirm is not None:
            try:
                confirm()
            except BaseException:
                answer.release()
                raise

    def _next(self, size: int) -> bytes:
        data = self._answer.read(min(size, self._left))
        if not data and self._left:
            raise BackendConnectionError("the answer ended early")
        self._left -= len(data)
        return data

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, b"" at the end."""
        if self._held:
            data, self._held = self._held[:size], self._held[size:]
            return data
        return self._next(size) if self._left else b""

    def release(self) -> None:
        """Let go of it."""
        self._answer.release()


def _moment(stamp: str) -> int:
    """Return the seconds since the epoch that a Last-Modified is."""
    try:
        return int(parsedate_to_datetime(stamp).timestamp())
    except ValueError:
        return 0


class _CopiedReader(Reader):
    """Reads an item that rclone cannot serve by its name: a copy of it, in a temporary file."""

    def __init__(self, calls: Calls, name: str, offset: int, size: int | None) -> None:
        copy = f"{calls.process.folder}/{secrets.token_hex(8)}"
        source = calls.at(name)
        calls.ask(
            "operations/copyfile",
            name,
            {
                "srcFs": source["fs"],
                "srcRemote": source["remote"],
                "dstFs": ":local:/",
                "dstRemote": copy.lstrip("/"),
                "_config": AS_TOLD,
            },
            timeout=LONG,
        )
        self._file: IO[bytes] = open(copy, "rb")  # noqa: SIM115 - closed by close
        os.unlink(copy)
        self.item_size = os.fstat(self._file.fileno()).st_size
        first = max(self.item_size + offset, 0) if offset < 0 else min(offset, self.item_size)
        rest = self.item_size - first
        self.remaining = rest if size is None else min(size, rest)
        self._file.seek(first)

    def read(self, size: int) -> bytes:
        data = self._file.read(max(min(size, self.remaining, CHUNK), 0))
        self.remaining -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


def _range(offset: int, size: int | None) -> dict[str, str]:
    if size is not None:
        return {"Range": f"bytes={offset}-{offset + size - 1}"}
    return {"Range": f"bytes={offset}-"} if offset else {}


def _span(answer: Answer) -> tuple[int, int, int] | None:
    """Return (first byte, bytes, size of the item) of what an answer brings, None for nothing."""
    if answer.left is None:
        return None
    if answer.status == Http.OK:
        return 0, answer.left, answer.left
    found = _RANGE.match(answer.header("Content-Range") or "")
    if answer.status != Http.PARTIAL_CONTENT or found is None:
        return None
    first, last, total = map(int, found.groups())
    size = last - first + 1
    return (first, size, total) if size > 0 and size == answer.left else None
