"""Listings of a borgstore server: one JSON array, taken from the wire at once and read piecemeal.

Whoever lists may take hours between two entries; the server would not wait for that. So the answer
is kept in memory while it is small and in a temporary file when it is not.
"""

from __future__ import annotations

import codecs
import json
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from ..names import InvalidName, check_path
from .base import ItemInfo
from .errors import BackendError
from .rest_incoming import Answer
from .rest_wire import BLOCK

IN_MEMORY = 256 << 10
"""Bytes of a listing that are held in memory."""

PIECE = 64 << 10
LONGEST = 1 << 20
"""Characters of one entry; a longer one is no entry."""

_DECODER = json.JSONDecoder()
_BETWEEN = " \t\r\n,"


def take(answer: Answer) -> IO[bytes]:
    """Read an answer to its end and return it, to be read from its start.

    Raises:
        BackendConnectionError: the connection broke.
        OSError: there is no room for it.
    """
    kept = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the caller closes it
    try:
        while data := answer.read(BLOCK):
            kept.write(data)
        kept.seek(0)
    except BaseException:
        kept.close()
        answer.release()
        raise
    return kept


def entries(kept: IO[bytes], folder: str) -> Iterator[ItemInfo]:
    """Yield the entries of a listing; what no name could address is left out.

    Raises:
        BackendError: it is no listing.
    """
    with kept:
        for entry in objects(kept, folder):
            info = _info(entry, folder)
            if info is not None:
                yield info


def objects(kept: IO[bytes], folder: str, before: str = "") -> Iterator[Any]:
    """Yield the elements of a JSON array, of which a piece at a time is held.

    Args:
        kept: what `take` returned; the caller closes it.
        before: letters, beside blanks, that may come before the array's bracket.

    Raises:
        BackendError: it is none.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    skipped = f"[{before}"
    text = ""
    at = 0
    begun = False
    while piece := kept.read(PIECE):
        text = text[at:] + decode(piece)
        at = 0
        while True:
            while at < len(text) and (text[at] in _BETWEEN or (not begun and text[at] in skipped)):
                begun = begun or text[at] == "["
                at += 1
            if at == len(text) or text[at] == "]":
                break
            if not begun:
                raise BackendError(f"{folder or '/'}: the server's listing is no JSON array")
            try:
                entry, at = _DECODER.raw_decode(text, at)
            except json.JSONDecodeError as error:
                if len(text) - at > LONGEST:
                    raise BackendError(
                        f"{folder or '/'}: the server's listing is broken"
                    ) from error
                break  # its end is still to come
            yield entry
    if not begun or text[at : at + 1] != "]":
        raise BackendError(f"{folder or '/'}: the server's listing ends early", retryable=True)


def _info(entry: Any, folder: str) -> ItemInfo | None:
    match entry:
        case {"name": str(name), "size": int(size)}:
            try:
                check_path(name)
            except InvalidName:
                return None
            if "/" in name:
                return None
            return ItemInfo(
                name,
                exists=True,
                size=size,
                directory=bool(entry.get("directory", False)),
                atime=_seconds(entry.get("atime")),
                mtime=_seconds(entry.get("mtime")),
            )
    raise BackendError(f"{folder or '/'}: the server's listing has an entry without name and size")


def _seconds(value: object) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
