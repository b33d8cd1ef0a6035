"""A file on its way to a client: whole or a range, if it has changed or only if it has not.

Several ranges at once are answered with the whole file, as RFC 9110 (14.2) allows. Every answer
says that it is to be saved and not shown: files are whatever their owners put there, and a page
among them must not run in the name of the gateway.
"""

from __future__ import annotations

import mimetypes
import time
from dataclasses import dataclass

from starlette.datastructures import Headers

from backupgw.kvstore.backends.base import Backend, ItemInfo, Reader
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.runtime.http import ranges
from backupgw.runtime.http.item_body import CHUNK, send_long, send_rest
from backupgw.runtime.threads import Threads

from .answering import Answering, wire
from .conditions import Outcome, entity_tag, evaluate, last_modified, range_holds
from .disposition import attachment
from .refusals import FileRefusal, missing, refusal_of

_TRIES = 5
"""How often a file is opened anew that is replaced at just this moment."""


async def send_file(
    exchange: Answering, place: Backend, name: str, threads: Threads, *, saved_as: str | None = None
) -> None:
    """Answer a GET or HEAD with a file.

    Args:
        name: its path, checked.
        saved_as: what the client calls it, default its own name.

    Raises:
        FileRefusal: 404, 412, 416 and others; nothing was sent.
        BackendError: the volume failed in the middle; the answer can only be broken off.
    """
    headers = Headers(scope=exchange.scope)
    found = await _opened(exchange, headers, place, name, threads)
    info, asked, reader = found.info, found.asked, found.reader
    told = _describing(info, found.tag)
    if found.unchanged:
        await exchange.start(304, wire(told))
        await exchange.send_body(b"", more=False)
        return
    told["Content-Type"] = mimetypes.guess_type(name)[0] or "application/octet-stream"
    told["Content-Disposition"] = attachment(saved_as or name)
    told["X-Content-Type-Options"] = "nosniff"
    status, size = 200, info.size
    if asked is not None and info.size:
        first, size = _span(asked, info.size)
        if not size:
            if reader is not None:
                reader.close()
            raise FileRefusal(
                416,
                "range-not-satisfiable",
                f"the file has {info.size} bytes",
                {"Content-Range": f"bytes */{info.size}"},
            )
        status = 206
        told["Content-Range"] = f"bytes {first}-{first + size - 1}/{info.size}"
    told["Content-Length"] = str(size)
    if reader is None:
        await exchange.start(status, wire(told))
        await exchange.send_body(b"", more=False)
        return
    try:
        if reader.remaining != size:
            raise FileRefusal(503, "file-changing", "the file is being changed; try again")
        await exchange.start(status, wire(told))
        if size > CHUNK:
            await send_long(exchange.scope, exchange.send, reader, threads)
        elif size:
            await send_rest(exchange.send, reader, threads)
        else:
            await exchange.send_body(b"", more=False)
    finally:
        await threads.run(reader.close)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file, the range of it that is to be sent, and what reads that; nothing does for a HEAD."""

    info: ItemInfo
    tag: str
    asked: ranges.ByteRange | None = None
    reader: Reader | None = None
    unchanged: bool = False


async def _opened(
    exchange: Answering, headers: Headers, place: Backend, name: str, threads: Threads
) -> _Found:
    try:
        for _ in range(_TRIES):
            info = await threads.run(place.info, name)
            if not info.exists:
                raise missing(name)
            if info.directory:
                raise FileRefusal(
                    409, "is-a-folder", f"{name!r} is a folder; download it as an archive"
                )
            tag = entity_tag(info, time.time())
            outcome = evaluate(headers, info, tag, reading=True)
            if outcome is Outcome.FAILED:
                raise FileRefusal(412, "precondition-failed", "the file is another one by now")
            if outcome is Outcome.NOT_MODIFIED:
                return _Found(info, tag, unchanged=True)
            asked = _asked(headers) if range_holds(headers, info, tag) else None
            if exchange.method == "HEAD":
                return _Found(info, tag)  # RFC 9110, 14.2: a range is of GET alone
            offset, size = asked if asked is not None else (0, None)
            reader = place.open_reader_nowait(name, offset=offset, size=size)
            if reader is None:
                reader = await threads.run(place.open_reader, name, offset=offset, size=size)
            if reader.item_size == info.size and (
                asked is None or await threads.run(place.info, name) == info
            ):
                return _Found(info, tag, asked, reader)
            await threads.run(reader.close)
    except ObjectNotFound as error:
        raise missing(name) from error
    except BackendError as error:
        raise refusal_of(error, name) from error
    raise FileRefusal(503, "file-changing", "the file is being changed all the time; try again")


def _asked(headers: Headers) -> ranges.ByteRange | None:
    text = headers.get("range")
    if text is None:
        return None
    try:
        return ranges.parse(text.encode("latin-1"))
    except ranges.InvalidRange as error:
        raise FileRefusal(416, "range-not-satisfiable", str(error)) from error


def _span(asked: ranges.ByteRange, total: int) -> tuple[int, int]:
    """Return the first byte of a range and how many bytes it has, 0 where it lies outside."""
    first = max(total + asked.offset, 0) if asked.offset < 0 else asked.offset
    rest = max(total - first, 0)
    return first, rest if asked.size is None else min(asked.size, rest)


def _describing(info: ItemInfo, tag: str) -> dict[str, str]:
    told = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    date = last_modified(info)
    if date is not None:
        told["Last-Modified"] = date
    return told
