"""A file that comes in one request. What is too large to be sent again comes by tus."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.threads import Threads

from .calling import on_thread
from .conditions import Outcome, entity_tag, evaluate
from .incoming import take_body
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
    place: Backend,
    name: str,
    threads: Threads,
    *,
    overwrite: bool,
    most: int | None = None,
) -> Stored:
    """Take the body of a request as a file.

    With a Content-Digest (RFC 9530) by sha-256 the bytes have to be those.

    Args:
        name: its path, checked and new.
        overwrite: a file of that name is replaced.
        most: bytes, None without limit.

    Raises:
        FileRefusal: nothing was stored.
        ClientLeft: the body ended early; nothing was stored.
    """
    headers = Headers(scope=scope)
    size = _size(headers, most)
    digest = _digest(headers)
    before = await on_thread(threads, name, lambda: _look(place, name))
    tag = entity_tag(before, time.time()) if before.exists else ""
    if evaluate(headers, before, tag, reading=False) is Outcome.FAILED:
        raise FileRefusal(412, "precondition-failed", "the file is another one by now")
    if before.exists and (before.directory or not overwrite):
        raise exists(name)
    writer = await on_thread(
        threads,
        name,
        lambda: place.open_writer(name, size=size, if_absent=not overwrite, expected_hash=digest),
    )
    received = 0

    def write(piece: bytes | memoryview) -> None:
        nonlocal received
        received += len(piece)
        if most is not None and received > most:
            raise _too_large(most)
        writer.write(piece)

    try:
        await take_body(scope, receive, threads, write)
        await threads.run(writer.commit)
    except BaseException as error:
        await threads.run(writer.abort)
        if isinstance(error, BackendError):
            raise refusal_of(error, name) from error
        raise
    return Stored(await on_thread(threads, name, lambda: place.info(name)), before.exists)


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
