"""A listing of one type of object as JSON, in pieces: a million objects need neither memory nor a
long stop.

Version 1 of the protocol is an array of names, version 2 of records with name and size. No record
outlives its line: thousands of them would keep the garbage collector busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ObjectNotFound

from .folders_ahead import FoldersAhead
from .paths import Target, is_id

_FIRST_BATCH = 256
_LARGEST_BATCH = 8192
"""Objects that are sent at a time: few at first so that the answer starts at once, then more (about
700 KiB) so that a million cost few steps."""

_DIGITS = 64
"""Of a name."""

_Found = tuple[str, int]
"""Name and size in bytes."""


class Listing:
    """The JSON of a listing in pieces; the calls come one after the other, on any thread.

    Whatever has no valid name is left out, and so is a pack outside the folder of its first byte.
    """

    def __init__(self, backend: Backend, target: Target, *, sizes: bool) -> None:
        self._backend = backend
        self._folders = self._data(target) if target.type == "data" else iter([("", target.name)])
        self._several: FoldersAhead | None = None
        if target.type == "data" and backend.capabilities.parallel_lists:
            self._several = FoldersAhead(backend, self._folders)
        self._prefix = ""
        self._found: Iterator[_Found] = iter(())
        self._optional = target.type == "data"
        self._sizes = sizes
        self._batch = _FIRST_BATCH
        self._lead = "["
        self._done = False

    def _data(self, target: Target) -> Iterator[tuple[str, str]]:
        for folder in self._backend.list(target.name):
            if folder.directory and len(folder.name) == 2:
                yield folder.name, f"{target.name}/{folder.name}"

    def next_piece(self) -> bytes | None:
        """Return the next piece of the document, None after its end.

        Raises:
            ObjectNotFound: from the first call: there is no such folder.
        """
        if self._done:
            return None
        lines: list[str] = []
        while len(lines) < self._batch:
            found = self._next(self._batch - len(lines))
            if found:
                lines += self._lines(found)
            elif not self._open_next():
                self._done = True
                break
        self._batch = min(self._batch * 4, _LARGEST_BATCH)
        text = ",".join(lines)
        lead, end = self._lead if lines or self._lead == "[" else "", "]" if self._done else ""
        self._lead = ","
        return f"{lead}{text}{end}".encode()

    def _lines(self, found: list[_Found]) -> list[str]:
        if not _all_good(found, self._prefix):
            prefix = self._prefix
            found = [each for each in found if each[0].startswith(prefix) and is_id(each[0])]
        # Names are hexadecimal, so nothing in the document needs escaping.
        if self._sizes:
            return [f'{{"name":"{name}","size":{size}}}' for name, size in found]
        return [f'"{name}"' for name, _ in found]

    def _next(self, most: int) -> list[_Found]:
        """Return what comes next in the folder that is being read, nothing at its end."""
        try:
            return list(islice(self._found, most))
        except ObjectNotFound:
            if not self._optional:
                raise
            return []  # removed while we were listing

    def _open_next(self) -> bool:
        if self._several is not None:
            following = self._several.next()
            if following is not None:
                self._prefix, self._found = following
            return following is not None
        for prefix, folder in self._folders:
            self._prefix = prefix
            try:
                self._found = self._backend.list_sizes(folder)
            except ObjectNotFound:
                if not self._optional:
                    raise
                continue
            return True
        return False

    def close(self) -> None:
        """Let go of the folders that are being read."""
        if self._several is not None:
            self._several.close()
        for reading in (self._found, self._folders):
            close = getattr(reading, "close", None)
            if close is not None:
                close()


def _all_good(found: list[_Found], prefix: str) -> bool:
    """Whether all names are an object's, which nearly always they are: at once, for that takes a
    fifth of what looking at each would."""
    names = [name for name, _ in found]
    if set(map(len, names)) != {_DIGITS}:
        return False
    text = "".join(names)
    return (
        text.isascii()
        and not text.encode().translate(None, b"0123456789abcdef")
        and all(set(text[n::_DIGITS]) == {digit} for n, digit in enumerate(prefix))
    )
