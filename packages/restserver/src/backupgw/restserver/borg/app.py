"""borgstore's REST protocol over HTTP: route, authenticate, move the bytes, choose the status.

Beyond borgstore 0.7's server: names are unquoted, operations overlap, bodies and listings stream,
a partial answer has its Content-Range, and `If-None-Match: *` makes a store create-only. The header
X-Backupgw tells clients that they may rely on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from starlette.types import Receive, Scope, Send

from backupgw.kvstore.backends.base import Backend, Reader, Writer
from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError, ObjectNotFound
from backupgw.kvstore.backends.rest import ACCEPT
from backupgw.kvstore.names import InvalidName
from backupgw.runtime.http.exchange import ANSWER_LINES
from backupgw.runtime.http.incoming import ClientGone, header_of
from backupgw.runtime.threads import Threads

from ..access import Access
from ..exchange import UPLOAD_BATCH, Pieces, open_reader
from ..refusals import Refusal
from . import requests
from .answers import JSON, BorgExchange, refusal_for
from .commands import run_command
from .listing import listing
from .requests import BadRequest, Span
from .shelf import Shelf

log = logging.getLogger(__name__)

_ACCEPT = ACCEPT.encode()

_TRIED = "backupgw.borg.tried"
"""Key of the ASGI scope: what needs no waiting was tried already."""


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
        exchange = BorgExchange(scope, receive, send)
        try:
            if header_of(scope, b"accept") != _ACCEPT:
                raise Refusal(406, f"this server speaks {ACCEPT} only")
            who = self._access.known(scope) or await self._access.identify(scope)
            scope.setdefault("state", {})["user"] = who.user
            await self._serve(exchange)
        except ClientGone:
            return
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except (BackendError, BadRequest, InvalidName) as error:
            await exchange.refuse(await self._explain(error, scope["path"]))

    def answer_nowait(self, scope: Scope, body: bytes) -> bool:
        """Store a small value where that needs no waiting, and answer; else False. See
        `runtime.http.first_step`."""
        backend = self._shelf.open_backend
        if (
            backend is None
            or scope["method"] != "POST"
            or scope["query_string"]
            or header_of(scope, b"accept") != _ACCEPT
            or (who := self._access.known(scope)) is None
        ):
            return False
        scope["state"]["user"] = who.user
        scope[_TRIED] = True
        if not backend.store_nowait(
            requests.name_of(scope["raw_path"]),
            body,
            if_absent=header_of(scope, b"if-none-match") == b"*",
            expected_hash=_expected_hash(scope),
        ):
            return False
        scope[ANSWER_LINES](200, BorgExchange.common_lines, b"")
        return True

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
        except Refusal as refusal:
            return refusal.status
        return 200

    async def _serve(self, exchange: BorgExchange) -> None:
        scope = exchange.scope
        method, query = scope["method"], requests.query_of(scope["query_string"])
        command = query.get("cmd", "")
        name = requests.name_of(scope["raw_path"])
        if not name and (method, command) in (("POST", "create"), ("DELETE", "destroy")):
            await (self._shelf.create() if command == "create" else self._shelf.destroy())
            log.info("store %s", "created" if command == "create" else "destroyed")
            await exchange.answer(200)
            return
        with self._shelf.borrow_nowait() or await self._shelf.borrow() as backend:
            match method, command:
                case "GET", _ if scope["raw_path"].endswith(b"/"):
                    await self._list(exchange, backend, name)
                case "GET", _ if name:
                    await self._load(exchange, backend, name)
                case "HEAD", _:
                    await self._head(exchange, backend, name)
                case "POST", _ if command:
                    await run_command(exchange, backend, name, query, self._threads)
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
                    raise Refusal(405, f"{method} is not possible here", allow)

    # -- reading

    async def _list(self, exchange: BorgExchange, backend: Backend, name: str) -> None:
        pieces = listing(backend, name)
        try:
            piece = await self._threads.run(next, pieces, b"")
            if not name and piece == b"[]":
                await self._shelf.check()
            await exchange.start(200, [JSON])
            while piece:
                await exchange.send_body(piece, more=True)
                piece = await self._threads.run(next, pieces, b"")
            await exchange.send_body(b"", more=False)
        finally:
            await self._threads.run(pieces.close)

    async def _head(self, exchange: BorgExchange, backend: Backend, name: str) -> None:
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

    async def _load(self, exchange: BorgExchange, backend: Backend, name: str) -> None:
        span = requests.span_of(exchange.header(b"range"))
        offset, size = span or (0, None)
        with await open_reader(backend, name, offset, size, self._threads) as reader:
            lines = b""
            if span is not None and reader.remaining:
                lines = b"content-range: %b\r\n" % _content_range(span, reader)
            await exchange.send_item(reader, 200 if span is None else 206, lines, self._threads)

    # -- writing

    async def _store(self, exchange: BorgExchange, backend: Backend, name: str) -> None:
        size = exchange.content_length()
        if_absent = exchange.header(b"if-none-match") == b"*"
        expected_hash = _expected_hash(exchange.scope)
        body = None
        if size is not None and size <= UPLOAD_BATCH:
            # It is held until it is whole, as a batch would be, and needs a thread once at most.
            body = await exchange.whole_body(UPLOAD_BATCH)
            if _TRIED not in exchange.scope and backend.store_nowait(
                name, body, if_absent=if_absent, expected_hash=expected_hash
            ):
                await exchange.answer(200)
                return
        open_writer = partial(
            backend.open_writer, name, size=size, if_absent=if_absent, expected_hash=expected_hash
        )
        if body is not None:
            await self._threads.run(_store, open_writer, body)
        else:
            await self._store_streamed(exchange, open_writer)
        await exchange.answer(200)

    async def _store_streamed(
        self, exchange: BorgExchange, open_writer: Callable[[], Writer]
    ) -> None:
        writer = await self._threads.run(open_writer)
        finished = False
        try:
            await exchange.take_body(
                self._threads, partial(_write, writer), partial(_finish, writer)
            )
            finished = True
        finally:
            if not finished:
                await self._threads.run(writer.abort)

    # -- failing

    async def _explain(self, error: Exception, path: str) -> Refusal:
        """Return the protocol's answer for what went wrong."""
        if isinstance(error, ObjectNotFound):
            try:
                await self._shelf.check()
            except BackendError as gone:
                error = gone
        refusal = refusal_for(error)
        if refusal.status >= 500:
            log.warning("%s: %s", path, error)
        return refusal


def _expected_hash(scope: Scope) -> str | None:
    header = header_of(scope, b"x-content-hash-sha256")
    return None if header is None else header.decode("latin-1").lower()


def _content_range(span: Span, reader: Reader) -> bytes:
    total = reader.item_size
    first = max(total + span.offset, 0) if span.offset < 0 else span.offset
    return b"bytes %d-%d/%d" % (first, first + reader.remaining - 1, total)


def _store(open_writer: Callable[[], Writer], body: bytes) -> None:
    with open_writer() as writer:
        writer.write(body)


def _write(writer: Writer, pieces: Pieces) -> None:
    for piece in pieces:
        writer.write(piece)


def _finish(writer: Writer, pieces: Pieces) -> None:
    _write(writer, pieces)
    writer.commit()
