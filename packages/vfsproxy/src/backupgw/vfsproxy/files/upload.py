"""A file that comes in one request. What is too large to be sent again comes by tus."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from backupgw.kvstore.backends.base import Backend, ItemInfo, Writer
from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.threads import Threads

from .calling import on_thread
from .conditions import Outcome, entity_tag, evaluate
from .incoming import GATHERED, gather, take_body
from .parents import check_parents
from .refusals import FileRefusal, exists, refusal_of

_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]*):", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that was uploaded.

    Attributes:
        info: what the volume says of it.
        replaced: there was one of that name.
    """

    info: ItemInfo
    replaced: bool

    @property
    def tag(self) -> str:
        """Its entity tag."""
        return entity_tag(self.info, time.time())


async def receive_file(
    scope: Scope,
    receive: Receive,
    open_place: Callable[[], Backend],
    name: str,
    threads: Threads,
    *,
    overwrite: bool,
    most: int | None = None,
) -> Stored:
    """Take the body of a request as a file.

    With a Content-Digest (RFC 9530) by sha-256 the bytes have to be those.

    Args:
        open_place: returns where the file goes; blocks, and may refuse.
        name: its path, checked and new.
        overwrite: a file of that name is replaced.
        most: bytes, None without limit.

    Raises:
        FileRefusal: nothing was stored.
        ClientLeft: the body ended early; nothing was stored.
    """
    headers = Headers(scope=scope)
    size = _size(headers, most)
    arriving = _Arriving(open_place, name, headers, size, most, overwrite=overwrite)
    if size is not None and size <= GATHERED:
        # All of it on one thread, once the bytes are there: each hop costs as much as the writing.
        pieces: list[bytes] = []
        await gather(receive, pieces)
        return await on_thread(threads, name, lambda: arriving.at_once(pieces))
    await on_thread(threads, name, arriving.begin)
    try:
        await take_body(scope, receive, threads, arriving.write)
    except BaseException as error:
        await threads.run(arriving.abort)
        if isinstance(error, BackendError):
            raise refusal_of(error, name) from error
        raise
    return await on_thread(threads, name, arriving.finish)


class _Arriving:
    """A file on its way into a folder. Its methods block."""

    def __init__(
        self,
        open_place: Callable[[], Backend],
        name: str,
        headers: Headers,
        size: int | None,
        most: int | None,
        *,
        overwrite: bool,
    ) -> None:
        self._open_place = open_place
        self._name = name
        self._headers = headers
        self._size = size
        self._digest = _digest(headers)
        self._most = most
        self._overwrite = overwrite
        self._received = 0
        self._place: Backend
        self._writer: Writer
        self._replaced = False

    def begin(self) -> None:
        """Open it. Raises Problem: it is refused; BackendError: the volume failed."""
        self._place = place = self._open_place()
        name = self._name
        before = _look(place, name)
        tag = entity_tag(before, time.time()) if before.exists else ""
        if evaluate(self._headers, before, tag, reading=False) is Outcome.FAILED:
            raise FileRefusal(412, "precondition-failed", "the file is another one by now")
        if before.exists and (before.directory or not self._overwrite):
            raise exists(name)
        self._replaced = before.exists
        self._writer = place.open_writer(
            name, size=self._size, if_absent=not self._overwrite, expected_hash=self._digest
        )

    def write(self, piece: bytes | memoryview) -> None:
        """Take more of its bytes."""
        self._received += len(piece)
        if self._most is not None and self._received > self._most:
            raise _too_large(self._most)
        self._writer.write(piece)

    def finish(self) -> Stored:
        """Give it its name."""
        try:
            self._writer.commit()
        except BaseException:
            self._writer.abort()
            raise
        return Stored(self._place.info(self._name), self._replaced)

    def abort(self) -> None:
        """Let go of it."""
        self._writer.abort()

    def at_once(self, pieces: Sequence[bytes]) -> Stored:
        """Do all of it."""
        self.begin()
        try:
            for piece in pieces:
                self.write(piece)
        except BaseException:
            self.abort()
            raise
        return self.finish()


def _look(place: Backend, name: str) -> ItemInfo:
    info = place.info(name)
    if not info.exists:
        check_parents(place, name)
    return info


def _size(headers: Mapping[str, str], most: int | None) -> int | None:
    text = headers.get("content-length")
    size = None if text is None else int(text)
    if size is not None and most is not None and size > most:
        raise _too_large(most)
    return size


def _too_large(most: int) -> FileRefusal:
    return FileRefusal(413, "too-large", f"a file may have {most} bytes here")


def _digest(headers: Mapping[str, str]) -> str | None:
    match = _SHA256.search(headers.get("content-digest", ""))
    if match is None:
        return None
    try:
        digest = base64.b64decode(match[1], validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise FileRefusal(400, "invalid-header", "Content-Digest: sha-256 must be 32 bytes")
    return digest.hex()
