"""The protocol's async edge: route, authenticate, allow, move the bytes, choose the status.

Facts about restic's client that shape the answers: success is exactly 200 (or 206); 401, 403, 404,
416 and 507 are final, everything else is retried for 15 minutes; a range reply needs an exact
Content-Length; a reply to HEAD needs one too.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from backupgw.kvstore.backends.base import Backend, FileSpan, Reader
from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError, ObjectNotFound
from backupgw.kvstore.ledger import LimitExceeded
from backupgw.kvstore.names import InvalidName
from backupgw.runtime.http.file_body import FILE_BODY
from backupgw.runtime.threads import Threads

from . import paths, ranges
from .access import Access, Refused
from .announcements import Announcer
from .counters import BlobCounters
from .paths import Kind, Target
from .refusals import Headers, Refusal, refusal_for
from .removal import InUse, removal
from .repositories import Listing, Outcome, Upload, delete_object, make_repository

log = logging.getLogger(__name__)

UPLOAD_BATCH = 1 << 20
"""Bytes gathered from the socket before a thread hashes and writes them: a thread hop costs about
as much as hashing 100 KB."""

DOWNLOAD_CHUNK = 512 << 10
"""Bytes read and handed to the socket at a time; larger bodies are left to threads of the host
where they lie in a file."""

LIST_V2 = b"application/vnd.x.restic.rest.v2"
LIST_V1 = b"application/vnd.x.restic.rest.v1"

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_OCTETS = (b"content-type", b"application/octet-stream")


class ClientGone(Exception):
    """The client closed the connection before its body was whole; there is nobody to answer."""


class RestApp:
    """The ASGI application of restic's REST protocol on one place.

    Args:
        backend: the place, open.
        access: who may do what.
        threads: where blocking calls run.
        counters: None where no metrics are wanted.
        announcer: tells others what happens.
        verify: whether uploads must hash to their names.
        removable: whether whole repositories can be removed by who may do it.
    """

    def __init__(
        self,
        backend: Backend,
        access: Access,
        threads: Threads,
        counters: BlobCounters | None,
        announcer: Announcer,
        *,
        verify: bool,
        removable: bool = False,
    ) -> None:
        self._backend = backend
        self._access = access
        self._threads = threads
        self._counters = counters
        self._announcer = announcer
        self._verify = verify
        self._verbs: dict[Kind, dict[str, _Handler]] = {
            Kind.REPOSITORY: {"POST": self._create},
            Kind.CONFIG: {
                "HEAD": self._head,
                "GET": self._get_config,
                "POST": self._save,
                "DELETE": self._delete,
            },
            Kind.LISTING: {"GET": self._list},
            Kind.OBJECT: {
                "HEAD": self._head,
                "GET": self._get,
                "POST": self._save,
                "DELETE": self._delete,
            },
        }
        if removable:
            self._verbs[Kind.REPOSITORY]["DELETE"] = self._remove

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = _Exchange(scope, receive, send)
        try:
            handler = await self._admit(exchange)
            await handler(exchange)
            if self._announcer.place_is_away:
                self._announcer.place_works()
        except ClientGone:
            return
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except (BackendError, InvalidName) as error:
            if isinstance(error, LimitExceeded):
                self._announcer.refused(error)
            elif isinstance(error, BackendConnectionError):
                self._announcer.place_failed(str(error))
            await exchange.refuse(refusal_for(error, exchange.target))

    async def ready(self) -> bool:
        """Whether the place answers."""
        try:
            return (await self._threads.run(self._backend.info, "")).exists
        except BackendError as error:
            log.warning("not ready: %s", error)
            return False

    async def metrics_allowed(self, scope: Scope) -> int:
        """Return 200 for who may see the metrics, else the status of the refusal."""
        try:
            who = self._access.known(scope)
            if who is None:
                who = await self._access.identify(scope)
        except Refused as refused:
            return refused.status
        return 200 if self._access.may_see_metrics(who) else 401

    async def _admit(self, exchange: _Exchange) -> _Handler:
        """Return the handler of a request that may proceed."""
        scope = exchange.scope
        try:
            who = self._access.known(scope)
            if who is None:
                who = await self._access.identify(scope)
            exchange.user = who.user
            scope.setdefault("state", {})["user"] = who.user
            try:
                target = paths.parse(scope["raw_path"])
            except paths.MalformedPath as error:
                raise Refusal(400, str(error)) from error
            if target is None:
                raise Refusal(404, "no such repository or object")
            exchange.target = target
            verbs = self._verbs[target.kind]
            method = scope["method"]
            handler = verbs.get(method)
            if handler is None:
                allow = ", ".join(verbs).encode()
                raise Refusal(405, f"{method} is not possible here", [(b"allow", allow)])
            self._access.check(who, method, target)
        except Refused as refused:
            raise Refusal(refused.status, refused.text, refused.headers) from refused
        return handler

    # -- repositories

    async def _create(self, exchange: _Exchange) -> None:
        query = parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if query.get("create", [""])[0] != "true":
            raise Refusal(400, "a repository is made by POST with ?create=true")
        await self._threads.run(make_repository, self._backend, exchange.found.repo)
        log.info("repository %s created", exchange.found.repo or "/")
        await exchange.answer(200)

    async def _remove(self, exchange: _Exchange) -> None:
        query = parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if query.get("delete", [""])[0] != "true":
            raise Refusal(400, "a repository is removed by DELETE with ?delete=true")
        repo = exchange.found.repo
        steps = removal(self._backend, repo, exchange.user)
        try:
            while await self._threads.run(next, steps, None) is not None:
                pass
        except InUse as error:
            raise Refusal(409, str(error)) from error
        log.warning("repository %s was removed by %s", repo or "/", exchange.user or "somebody")
        self._announcer.repository_deleted(exchange.user, repo)
        await exchange.answer(200)

    # -- listings

    async def _list(self, exchange: _Exchange) -> None:
        sizes = exchange.header(b"accept") == LIST_V2
        listing = Listing(self._backend, exchange.found, sizes=sizes)
        try:
            piece = await self._threads.run(listing.next_piece)
            await exchange.start(200, [(b"content-type", LIST_V2 if sizes else LIST_V1)])
            while piece is not None:
                await exchange.send_body(piece, more=True)
                piece = await self._threads.run(listing.next_piece)
            await exchange.send_body(b"", more=False)
        finally:
            await self._threads.run(listing.close)

    # -- objects and the config

    async def _head(self, exchange: _Exchange) -> None:
        info = await self._threads.run(self._backend.info, exchange.found.name)
        if not info.exists or info.directory:
            raise ObjectNotFound(exchange.found.name)
        headers = [(b"content-length", b"%d" % info.size)]
        if exchange.found.kind is Kind.OBJECT:
            headers.append((b"accept-ranges", b"bytes"))
        await exchange.start(200, headers)
        await exchange.send_body(b"", more=False)

    async def _get_config(self, exchange: _Exchange) -> None:
        with await self._open(exchange.found.name, None) as reader:
            await self._send_item(exchange, reader, 200, [])

    async def _get(self, exchange: _Exchange) -> None:
        wanted = exchange.header(b"range")
        try:
            asked = ranges.parse(wanted) if wanted is not None else None
        except ranges.InvalidRange as error:
            raise Refusal(416, str(error)) from error
        with await self._open(exchange.found.name, asked) as reader:
            total = reader.item_size
            if asked is None or total == 0:
                await self._send_item(exchange, reader, 200, [(b"accept-ranges", b"bytes")])
                return
            if reader.remaining == 0:
                span = (b"content-range", b"bytes */%d" % total)
                raise Refusal(416, f"the object has {total} bytes", [span])
            first = max(total + asked.offset, 0) if asked.offset < 0 else asked.offset
            last = first + reader.remaining - 1
            span = (b"content-range", b"bytes %d-%d/%d" % (first, last, total))
            await self._send_item(exchange, reader, 206, [(b"accept-ranges", b"bytes"), span])

    async def _open(self, name: str, asked: ranges.ByteRange | None) -> Reader:
        offset, size = asked if asked is not None else (0, None)
        reader = self._backend.open_reader_nowait(name, offset=offset, size=size)
        if reader is None:
            reader = await self._threads.run(
                self._backend.open_reader, name, offset=offset, size=size
            )
        return reader

    async def _send_item(
        self, exchange: _Exchange, reader: Reader, status: int, headers: Headers
    ) -> None:
        size = reader.remaining
        await exchange.start(status, [(b"content-length", b"%d" % size), _OCTETS, *headers])
        span = reader.file_span() if size > DOWNLOAD_CHUNK and exchange.takes_files else None
        if span is not None:
            await exchange.send_file(span)
        while span is None and reader.remaining:
            chunk = reader.read_nowait(DOWNLOAD_CHUNK)
            if chunk is None:
                chunk = await self._threads.run(reader.read, DOWNLOAD_CHUNK)
            await exchange.send_body(chunk, more=reader.remaining > 0)
        if size == 0:
            await exchange.send_body(b"", more=False)
        if self._counters is not None:
            self._counters.read(exchange.user, exchange.found, size)

    async def _save(self, exchange: _Exchange) -> None:
        target = exchange.found
        upload = Upload(self._backend, target, exchange.content_length(), verify=self._verify)
        finished = False
        try:
            outcome = await self._take_body(exchange, upload)
            finished = True
        finally:
            if upload.damaged:
                self._announcer.damaged(target, repaired=finished)
            if not finished:
                await self._threads.run(upload.abort)
        if outcome is not Outcome.IDENTICAL and self._counters is not None:
            self._counters.written(exchange.user, target, upload.received)
        if outcome is Outcome.STORED:
            # Before the answer: it is durable, whether or not the client learns of it.
            self._announcer.stored(exchange.user, target, upload.received)
        await exchange.answer(200)

    async def _take_body(self, exchange: _Exchange, upload: Upload) -> Outcome:
        chunks: list[bytes] = []
        held = 0
        while True:
            chunk, more = await exchange.receive_body()
            if chunk:
                chunks.append(chunk)
                held += len(chunk)
            if not more:
                return await self._threads.run(upload.finish, chunks)
            if held >= UPLOAD_BATCH:
                await self._threads.run(upload.write, chunks)
                chunks, held = [], 0

    async def _delete(self, exchange: _Exchange) -> None:
        target = exchange.found
        size = 0
        try:
            if self._counters is not None:
                size = (await self._threads.run(self._backend.info, target.name)).size
            await self._threads.run(delete_object, self._backend, target.name, exchange.user)
        except ObjectNotFound:
            log.debug("%s was gone already", target.name)
        else:
            self._announcer.deleted(exchange.user, target)
            if self._counters is not None:
                self._counters.deleted(exchange.user, target, size)
        await exchange.answer(200)


_Handler = Callable[["_Exchange"], Awaitable[None]]


class _Exchange:
    """One request and its answer."""

    __slots__ = ("_receive", "_send", "_started", "scope", "target", "user")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self.target: Target | None = None
        self.user: str | None = None

    @property
    def found(self) -> Target:
        """The target of an admitted request."""
        if self.target is None:
            raise RuntimeError("the request was not admitted")
        return self.target

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value)
        return None

    def content_length(self) -> int | None:
        """The declared length of the body; the HTTP parser has vouched for its form."""
        value = self.header(b"content-length")
        return None if value is None else int(value)

    async def receive_body(self) -> tuple[bytes, bool]:
        """Return the next piece of the body, and whether more will come."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), message.get("more_body", False)

    async def start(self, status: int, headers: Headers) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send_body(self, body: bytes | bytearray, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    @property
    def takes_files(self) -> bool:
        """Whether the host sends files by itself (it does not on TLS)."""
        return FILE_BODY in self.scope.get("extensions", ())

    async def send_file(self, span: FileSpan) -> None:
        await self._send(
            {"type": FILE_BODY, "fd": span.fd, "offset": span.offset, "size": span.size}
        )

    async def answer(self, status: int, text: str = "", headers: Headers | None = None) -> None:
        body = f"{text}\n".encode() if text else b""
        head: Headers = [(b"content-length", b"%d" % len(body)), _TEXT, *(headers or [])]
        await self.start(status, head)
        await self.send_body(body, more=False)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal; an answer under way can only be broken off."""
        if self._started:
            log.error("an answer was broken off: %s", refusal.text)
            raise refusal
        await self.answer(refusal.status, refusal.text, refusal.headers)
