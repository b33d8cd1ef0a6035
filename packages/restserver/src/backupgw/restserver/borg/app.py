"""borgstore's REST protocol over HTTP: route, authenticate, move the bytes, choose the status.

Beyond borgstore 0.7's server: names are unquoted, operations overlap, bodies and listings stream,
a partial answer has its Content-Range, and `If-None-Match: *` makes a store create-only. The header
X-Backupgw tells clients that they may rely on it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

from starlette.types import Receive, Scope, Send

from backupgw.kvstore import parts
from backupgw.kvstore.backends.base import Backend, ItemInfo, Reader, Writer
from backupgw.kvstore.backends.errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    QuotaExceeded,
    ReadRangeError,
)
from backupgw.kvstore.backends.rest import ACCEPT, OURS
from backupgw.kvstore.names import InvalidName
from backupgw.kvstore.utils import hashing
from backupgw.kvstore.utils.nesting import nest
from backupgw.runtime.threads import Threads

from ..access import Access, Refused
from . import requests
from .requests import BadRequest, Span
from .shelf import Shelf

log = logging.getLogger(__name__)

UPLOAD_BATCH = 1 << 20
DOWNLOAD_CHUNK = 512 << 10
LIST_BATCH = 1000
"""Entries of a listing that a thread fetches at a time."""

MOST_SOURCES = 8 << 20
"""Bytes of the body of gather and defrag at most; Borg sends about 100 KB."""

GATHERED_WHOLE = 4 << 20
"""Bytes of gathered parts that are fetched in one go; more is streamed."""

Headers = list[tuple[bytes, bytes]]
_COMMON: Headers = [
    (b"cache-control", b"no-store, no-cache, must-revalidate, max-age=0"),
    (OURS.lower().encode(), b"1"),
]
_OCTETS = (b"content-type", b"application/octet-stream")
_JSON = (b"content-type", b"application/json")
_ACCEPT = ACCEPT.encode()

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (ObjectNotFound, 404),
    (BackendDoesNotExist, 410),
    (BackendAlreadyExists, 409),
    (ObjectExists, 409),
    (BackendMustBeOpen, 412),
    (BackendMustNotBeOpen, 412),
    (PermissionDenied, 403),
    (ContentMismatch, 422),
    (QuotaExceeded, 507),
    (ReadRangeError, 416),
    (BadRequest, 400),
    (InvalidName, 400),
)


class Answered(Exception):
    """An answer other than success."""

    def __init__(self, status: int, text: str, headers: Headers | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or []


class ClientGone(Exception):
    """The client closed the connection; there is nobody to answer."""


class BorgApp:
    """The ASGI application of borgstore's protocol on one store.

    Args:
        shelf: the store.
        access: who may come in.
        threads: where blocking calls run.
    """

    def __init__(self, shelf: Shelf, access: Access, threads: Threads) -> None:
        self._shelf = shelf
        self._access = access
        self._threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = _Exchange(scope, receive, send)
        try:
            await self._admit(scope)
            await self._serve(exchange)
        except ClientGone:
            return
        except Answered as answered:
            await exchange.refuse(answered)
        except (BackendError, BadRequest, InvalidName) as error:
            await exchange.refuse(await self._explain(error, scope["path"]))

    async def ready(self) -> bool:
        """Whether the store, if there is one, answers."""
        try:
            with await self._shelf.borrow() as backend:
                return (await self._threads.run(backend.info, "")).exists
        except BackendDoesNotExist:
            return True  # it is for a client to create
        except BackendError as error:
            log.warning("not ready: %s", error)
            return False

    async def metrics_allowed(self, scope: Scope) -> int:
        """Return 200 for who may see the metrics, else the status of the refusal."""
        try:
            if self._access.known(scope) is None:
                await self._access.identify(scope)
        except Refused as refused:
            return refused.status
        return 200

    async def _admit(self, scope: Scope) -> None:
        if _header(scope, b"accept") != _ACCEPT:
            raise Answered(406, f"this server speaks {ACCEPT} only")
        try:
            who = self._access.known(scope) or await self._access.identify(scope)
        except Refused as refused:
            raise Answered(refused.status, refused.text, refused.headers) from refused
        scope.setdefault("state", {})["user"] = who.user

    async def _serve(self, exchange: _Exchange) -> None:
        scope = exchange.scope
        method, query = scope["method"], requests.query_of(scope["query_string"])
        command = query.get("cmd", "")
        name = requests.name_of(scope["raw_path"])
        if not name and (method, command) in (("POST", "create"), ("DELETE", "destroy")):
            await (self._shelf.create() if command == "create" else self._shelf.destroy())
            log.info("store %s", "created" if command == "create" else "destroyed")
            await exchange.answer(200)
            return
        with await self._shelf.borrow() as backend:
            match method, command:
                case "GET", _ if scope["raw_path"].endswith(b"/"):
                    await self._list(exchange, backend, name)
                case "GET", _ if name:
                    await self._load(exchange, backend, name)
                case "HEAD", _:
                    await self._head(exchange, backend, name)
                case "POST", _ if command:
                    await self._command(exchange, backend, name, query)
                case "POST", _ if name:
                    await self._store(exchange, backend, name)
                case "DELETE", "rmdir" if name:
                    await self._threads.run(backend.rmdir, name)
                    await exchange.answer(200)
                case "DELETE", "" if name:
                    await self._threads.run(backend.delete, name)
                    await exchange.answer(200)
                case (("GET" | "POST" | "DELETE"), _):
                    raise BadRequest("no name, or no such command")
                case _:
                    allow = [(b"allow", b"GET, HEAD, POST, DELETE")]
                    raise Answered(405, f"{method} is not possible here", allow)

    # -- reading

    async def _list(self, exchange: _Exchange, backend: Backend, name: str) -> None:
        pieces = _listing(backend, name)
        try:
            piece = await self._threads.run(next, pieces, b"")
            if not name and piece == b"[]":
                await self._shelf.check()
            await exchange.start(200, [_JSON])
            while piece:
                await exchange.send_body(piece, more=True)
                piece = await self._threads.run(next, pieces, b"")
            await exchange.send_body(b"", more=False)
        finally:
            await self._threads.run(pieces.close)

    async def _head(self, exchange: _Exchange, backend: Backend, name: str) -> None:
        info = await self._threads.run(backend.info, name)
        if not info.exists:
            raise ObjectNotFound(name)
        headers = [
            (b"content-length", b"%d" % info.size),
            (b"x-borgstore-is-directory", b"true" if info.directory else b"false"),
            (b"x-borgstore-atime", str(info.atime).encode()),
            (b"x-borgstore-mtime", str(info.mtime).encode()),
        ]
        await exchange.start(200, headers)
        await exchange.send_body(b"", more=False)

    async def _load(self, exchange: _Exchange, backend: Backend, name: str) -> None:
        span = requests.span_of(_header(exchange.scope, b"range"))
        offset, size = span or (0, None)
        reader = backend.open_reader_nowait(name, offset=offset, size=size)
        if reader is None:
            reader = await self._threads.run(backend.open_reader, name, offset=offset, size=size)
        with reader:
            length = reader.remaining
            headers: Headers = [(b"content-length", b"%d" % length), _OCTETS]
            if span is not None and length:
                headers.append((b"content-range", _content_range(span, reader)))
            await exchange.start(200 if span is None else 206, headers)
            while reader.remaining:
                chunk = reader.read_nowait(DOWNLOAD_CHUNK)
                if chunk is None:
                    chunk = await self._threads.run(reader.read, DOWNLOAD_CHUNK)
                await exchange.send_body(chunk, more=reader.remaining > 0)
            if not length:
                await exchange.send_body(b"", more=False)

    # -- writing

    async def _store(self, exchange: _Exchange, backend: Backend, name: str) -> None:
        length = _header(exchange.scope, b"content-length")
        size = None if length is None else int(length)
        open_writer = partial(
            backend.open_writer,
            name,
            size=size,
            if_absent=_header(exchange.scope, b"if-none-match") == b"*",
            expected_hash=_expected_hash(exchange.scope),
        )
        if size is not None and size <= UPLOAD_BATCH:
            # It is held until it is whole, as a batch would be, and needs a thread only once.
            await self._threads.run(_store, open_writer, await exchange.whole_body(UPLOAD_BATCH))
        else:
            await self._store_streamed(exchange, open_writer)
        await exchange.answer(200)

    async def _store_streamed(self, exchange: _Exchange, open_writer: Callable[[], Writer]) -> None:
        writer = await self._threads.run(open_writer)
        finished = False
        try:
            await self._take_body(exchange, writer)
            finished = True
        finally:
            if not finished:
                await self._threads.run(writer.abort)

    async def _take_body(self, exchange: _Exchange, writer: Writer) -> None:
        chunks: list[bytes] = []
        held = 0
        more = True
        while more:
            chunk, more = await exchange.receive_body()
            if chunk:
                chunks.append(chunk)
                held += len(chunk)
            if not more:
                await self._threads.run(_finish, writer, chunks)
            elif held >= UPLOAD_BATCH:
                await self._threads.run(_write, writer, chunks)
                chunks, held = [], 0

    # -- commands

    async def _command(
        self, exchange: _Exchange, backend: Backend, name: str, query: dict[str, str]
    ) -> None:
        run = self._threads.run
        match query["cmd"]:
            case "mkdir" if name:
                await run(backend.mkdir, name)
                await exchange.answer(200)
            case "move":
                current, new = requests.named(query, "current"), requests.named(query, "new")
                await run(backend.move, current, new)
                await exchange.answer(200)
            case "hash" if name:
                digest = await run(_hash, backend, name, query.get("algorithm", "sha256"))
                await exchange.answer(200, digest)
            case "quota":
                quota = await run(backend.quota)
                found = json.dumps({"limit": quota.limit, "usage": quota.usage})
                await exchange.answer(200, found, [_JSON])
            case "gather":
                sources = requests.sources_of(await exchange.whole_body(MOST_SOURCES))
                await self._gather(exchange, backend, sources)
            case "defrag":
                sources = requests.sources_of(await exchange.whole_body(MOST_SOURCES))
                await exchange.answer(200, await run(_defrag, backend, sources, query))
            case _:
                raise BadRequest(f"no such command, or not for this name: {query['cmd']!r}")

    async def _gather(
        self, exchange: _Exchange, backend: Backend, sources: Sequence[requests.Part]
    ) -> None:
        size = sum(part[2] for part in sources)
        head: Headers = [(b"content-length", b"%d" % size), _OCTETS]
        if size <= GATHERED_WHOLE:
            body = await self._threads.run(backend.gather, sources)
            await exchange.start(200, head)
            await exchange.send_body(body, more=False)
            return
        await self._threads.run(_check_ranges, backend, sources)
        await exchange.start(200, head)
        chunks = parts.chunks(backend, sources)
        while chunk := await self._threads.run(next, chunks, b""):
            await exchange.send_body(chunk, more=True)
        await exchange.send_body(b"", more=False)

    async def _explain(self, error: Exception, path: str) -> Answered:
        """Return the protocol's answer for what went wrong."""
        if isinstance(error, ObjectNotFound):
            try:
                await self._shelf.check()
            except BackendError as gone:
                error = gone
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        headers: Headers = []
        if status == 500 and isinstance(error, BackendError) and error.retryable:
            status = 503
            if error.retry_after:
                headers = [(b"retry-after", b"%d" % max(1, round(error.retry_after)))]
        if status >= 500:
            log.warning("%s: %s", path, error)
        return Answered(status, str(error), headers)


class _Exchange:
    """One request and its answer."""

    __slots__ = ("_receive", "_send", "_started", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._started = False

    async def receive_body(self) -> tuple[bytes, bool]:
        """Return the next piece of the body, and whether more will come."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), message.get("more_body", False)

    async def whole_body(self, most: int) -> bytes:
        """Return the whole body. Raises Answered with 413 where it is larger."""
        pieces: list[bytes] = []
        held = 0
        more = True
        while more:
            piece, more = await self.receive_body()
            pieces.append(piece)
            held += len(piece)
            if held > most:
                raise Answered(413, f"the body may have {most} bytes")
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]

    async def start(self, status: int, headers: Headers) -> None:
        self._started = True
        message: dict[str, Any] = {"type": "http.response.start", "status": status}
        await self._send({**message, "headers": headers + _COMMON})

    async def send_body(self, body: bytes | bytearray, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def answer(self, status: int, text: str = "", headers: Headers | None = None) -> None:
        body = text.encode(errors="replace")
        head: Headers = [(b"content-length", b"%d" % len(body))]
        await self.start(status, head + (headers or [(b"content-type", b"text/plain")]))
        await self.send_body(body, more=False)

    async def refuse(self, answered: Answered) -> None:
        """Answer with a refusal; an answer under way can only be broken off."""
        if self._started:
            log.error("an answer was broken off: %s", answered.text)
            raise answered
        await self.answer(answered.status, answered.text, answered.headers)


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def _expected_hash(scope: Scope) -> str | None:
    header = _header(scope, b"x-content-hash-sha256")
    return None if header is None else header.decode("latin-1").lower()


def _content_range(span: Span, reader: Reader) -> bytes:
    total = reader.item_size
    first = max(total + span.offset, 0) if span.offset < 0 else span.offset
    return b"bytes %d-%d/%d" % (first, first + reader.remaining - 1, total)


def _listing(backend: Backend, name: str) -> Generator[bytes, None, None]:
    """Yield a folder's entries as one JSON array, in pieces."""
    lines: list[str] = []
    lead = "["
    for info in backend.list(name):
        lines.append(_entry(info))
        if len(lines) == LIST_BATCH:
            yield (lead + ",\n".join(lines)).encode()
            lines.clear()
            lead = ",\n"
    if lines:
        yield (lead + ",\n".join(lines) + "]").encode()
    else:
        yield b"[]" if lead == "[" else b"]"


def _entry(info: ItemInfo) -> str:
    return json.dumps(
        {
            "name": info.name,
            "size": info.size,
            "directory": info.directory,
            "atime": info.atime,
            "mtime": info.mtime,
        }
    )


def _store(open_writer: Callable[[], Writer], body: bytes) -> None:
    with open_writer() as writer:
        writer.write(body)


def _write(writer: Writer, chunks: list[bytes]) -> None:
    for chunk in chunks:
        writer.write(chunk)


def _finish(writer: Writer, chunks: list[bytes]) -> None:
    _write(writer, chunks)
    writer.commit()


def _hash(backend: Backend, name: str, algorithm: str) -> str:
    try:
        digest = hashing.new(algorithm)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if algorithm in hashlib.algorithms_available:
        return backend.hash(name, algorithm)
    with backend.open_reader(name) as reader:
        while chunk := reader.read(UPLOAD_BATCH):
            digest.update(chunk)
    return digest.hexdigest()


def _check_ranges(backend: Backend, sources: Sequence[requests.Part]) -> None:
    """Find out before the first byte is sent whether every part is there."""
    sizes: dict[str, int] = {}
    for name, offset, size in sources:
        if name not in sizes:
            info = backend.info(name)
            if not info.exists or info.directory:
                raise ObjectNotFound(name)
            sizes[name] = info.size
        first = max(sizes[name] + offset, 0) if offset < 0 else offset
        if first + size > sizes[name]:
            raise ReadRangeError(f"{name}: {size} bytes at {offset}, of {sizes[name]}")


def _defrag(backend: Backend, sources: Sequence[requests.Part], query: dict[str, str]) -> str:
    if query.get("target"):
        target = requests.named(query, "target")
        backend.defrag(sources, target)
        return target
    algorithm = query.get("algorithm")
    if not algorithm:
        raise BadRequest("defrag needs a target or an algorithm")
    levels = query.get("levels", "0")
    if not (levels.isascii() and levels.isdigit() and int(levels) <= 8):
        raise BadRequest(f"levels is a number up to 8, not {levels!r}")
    try:
        digest = parts.hash_of(backend, sources, algorithm)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    namespace = query.get("namespace", "").rstrip("/")
    name = f"{namespace}/{digest}" if namespace else digest
    target = requests.named({"target": nest(name, int(levels)) if int(levels) else name}, "target")
    parts.write_verified(backend, sources, target, algorithm, digest)
    return target
