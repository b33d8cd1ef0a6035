"""The protocol's async edge: route, authenticate, allow, move the bytes, choose the status.

Facts about restic's client that shape the answers: success is exactly 200 (or 206); 401, 403, 404,
416 and 507 are final, everything else is retried for 15 minutes; a range reply needs an exact
Content-Length; a reply to HEAD needs one too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from backupgw.kvstore.backends.base import Backend, Loaded, Reader
from backupgw.kvstore.backends.errors import BackendConnectionError, BackendError, ObjectNotFound
from backupgw.kvstore.ledger import LimitExceeded
from backupgw.kvstore.names import InvalidName
from backupgw.runtime.authorisation import Principal
from backupgw.runtime.http import ranges
from backupgw.runtime.http.incoming import ClientGone
from backupgw.runtime.seldom import Seldom
from backupgw.runtime.threads import Threads

from . import paths
from .access import Access
from .announcements import Announcer
from .counters import BlobCounters
from .exchange import Exchange, open_reader
from .listing import Listing
from .paths import Kind, Target
from .rates import Limiter
from .refusals import Refusal, refusal_for
from .removal import InUse, removal
from .repositories import Outcome, Upload, delete_object, make_repository

log = logging.getLogger(__name__)

LIST_V2 = b"application/vnd.x.restic.rest.v2"
LIST_V1 = b"application/vnd.x.restic.rest.v1"
ACCEPT_RANGES = b"accept-ranges: bytes\r\n"
PART = ACCEPT_RANGES + b"content-range: bytes %d-%d/%d\r\n"


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
        limiter: holds clients to rates.
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
        limiter: Limiter | None = None,
    ) -> None:
        self._backend = backend
        self._access = access
        self._threads = threads
        self._counters = counters
        self._announcer = announcer
        self._verify = verify
        self._limiter = limiter
        self._seldom = Seldom()
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
        exchange = _Request(scope, receive, send)
        try:
            if self._limiter is not None and self._limiter.active:
                await self._answer_limited(exchange, self._limiter)
            else:
                who = self._access.known(scope)
                if who is None:
                    who = await self._access.identify(scope)
                await self._admit(exchange, who)(exchange)
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

    async def _answer_limited(self, exchange: _Request, limiter: Limiter) -> None:
        client = exchange.scope.get("client")
        limiter.check_address(client[0] if client else "")
        who = self._access.known(exchange.scope)
        if who is None:
            who = await self._access.identify(exchange.scope)
        handler = self._admit(exchange, who)
        user = exchange.user or ""
        with limiter.connected(user):
            if exchange.found.type != "locks":
                limiter.check_user(user)
            exchange.upload_pace = limiter.upload(user)
            exchange.download_pace = limiter.download(user)
            await handler(exchange)

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
        except Refusal as refusal:
            return refusal.status
        return 200 if self._access.may_see_metrics(who) else 401

    def _admit(self, exchange: _Request, who: Principal) -> _Handler:
        """Return the handler of a request that may proceed."""
        scope = exchange.scope
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
        try:
            self._access.check(who, method, target)
        except Refusal as refusal:
            self._tell_of_refusal(exchange, target, refusal)
            raise
        return handler

    def _tell_of_refusal(self, exchange: _Request, target: Target, refusal: Refusal) -> None:
        """Log that somebody was refused what they asked of a repository, now and then: a client
        may ask as often as it likes."""
        more = self._seldom.due((exchange.user, target.repo, refusal.text))
        if more is not None:
            client = exchange.scope.get("client")
            log.warning(
                "refused: user %r from %s, repository %r: %s%s",
                exchange.user or "", client[0] if client else "a unix socket",
                target.repo or "/", refusal.text, more,
            )  # fmt: skip

    # -- repositories

    async def _create(self, exchange: _Request) -> None:
        query = parse_qs(exchange.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if query.get("create", [""])[0] != "true":
            raise Refusal(400, "a repository is made by POST with ?create=true")
        await self._threads.run(make_repository, self._backend, exchange.found.repo)
        log.info("repository %s created", exchange.found.repo or "/")
        await exchange.answer(200)

    async def _remove(self, exchange: _Request) -> None:
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

    async def _list(self, exchange: _Request) -> None:
        sizes = exchange.header(b"accept") == LIST_V2
        listing = Listing(self._backend, exchange.found, sizes=sizes)
        coming: asyncio.Future[bytes | None] | None = None
        try:
            piece = await self._threads.run(listing.next_piece)
            await exchange.start(200, [(b"content-type", LIST_V2 if sizes else LIST_V1)])
            while piece is not None:
                # The next one is made while this one travels.
                coming = asyncio.ensure_future(self._threads.run(listing.next_piece))
                await exchange.send_body(piece, more=True)
                if exchange.download_pace is not None:
                    await exchange.download_pace(len(piece))
                piece = await coming
            await exchange.send_body(b"", more=False)
        finally:
            if coming is not None and not coming.done():
                await asyncio.wait((coming,))
            if coming is not None and not coming.cancelled():
                coming.exception()  # looked at, or asyncio would complain
            await self._threads.run(listing.close)

    # -- objects and the config

    async def _head(self, exchange: _Request) -> None:
        info = await self._threads.run(self._backend.info, exchange.found.name)
        if not info.exists or info.directory:
            raise ObjectNotFound(exchange.found.name)
        headers = [(b"content-length", b"%d" % info.size)]
        if exchange.found.kind is Kind.OBJECT:
            headers.append((b"accept-ranges", b"bytes"))
        await exchange.start(200, headers)
        await exchange.send_body(b"", more=False)

    async def _get_config(self, exchange: _Request) -> None:
        with await open_reader(
            self._backend, exchange.found.name, 0, None, self._threads
        ) as reader:
            await self._send_item(exchange, reader, 200, b"")

    async def _get(self, exchange: _Request) -> None:
        wanted = exchange.header(b"range")
        try:
            asked = ranges.parse(wanted) if wanted is not None else None
        except ranges.InvalidRange as error:
            raise Refusal(416, str(error)) from error
        offset, size = asked or (0, None)
        name = exchange.found.name
        if exchange.download_pace is None:
            found = self._backend.load_nowait(name, offset=offset, size=size)
            if found is not None and found.data:
                await self._send_loaded(exchange, found, asked)
                return
        reader = self._backend.open_reader_nowait(name, offset=offset, size=size)
        if reader is None:
            reader = await self._threads.run(
                self._backend.open_reader, name, offset=offset, size=size
            )
        try:
            total = reader.item_size
            if asked is None or total == 0:
                await self._send_item(exchange, reader, 200, ACCEPT_RANGES)
                return
            if reader.remaining == 0:
                span = (b"content-range", b"bytes */%d" % total)
                raise Refusal(416, f"the object has {total} bytes", [span])
            part = _part(offset, reader.remaining, total)
            await self._send_item(exchange, reader, 206, part)
        finally:
            reader.close()

    async def _send_loaded(
        self, exchange: _Request, found: Loaded, asked: ranges.ByteRange | None
    ) -> None:
        data, total = found
        if asked is None:
            await exchange.send_whole_lines(200, ACCEPT_RANGES, data)
        else:
            await exchange.send_whole_lines(206, _part(asked.offset, len(data), total), data)
        if self._counters is not None:
            self._counters.read(exchange.user, exchange.found, len(data))

    async def _send_item(
        self, exchange: _Request, reader: Reader, status: int, lines: bytes
    ) -> None:
        size = reader.remaining
        await exchange.send_item(reader, status, lines, self._threads)
        if self._counters is not None:
            self._counters.read(exchange.user, exchange.found, size)

    async def _save(self, exchange: _Request) -> None:
        target = exchange.found
        upload = Upload(self._backend, target, exchange.content_length(), verify=self._verify)
        finished = False
        try:
            outcome = await exchange.take_body(self._threads, upload.write, upload.finish)
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

    async def _delete(self, exchange: _Request) -> None:
        target = exchange.found
        sized = self._counters is not None
        try:
            size = await self._threads.run(
                partial(delete_object, self._backend, target.name, exchange.user, sized=sized)
            )
        except ObjectNotFound:
            log.debug("%s was gone already", target.name)
        else:
            self._announcer.deleted(exchange.user, target)
            if self._counters is not None:
                self._counters.deleted(exchange.user, target, size)
        await exchange.answer(200)


def _part(offset: int, size: int, total: int) -> bytes:
    """Return the lines that say which part of an object an answer has."""
    first = max(total + offset, 0) if offset < 0 else offset
    return PART % (first, first + size - 1, total)


_Handler = Callable[["_Request"], Awaitable[None]]


class _Request(Exchange):
    """A request of this protocol: what it is about, and who asks."""

    __slots__ = ("target", "user")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.target: Target | None = None
        self.user: str | None = None

    @property
    def found(self) -> Target:
        """The target of an admitted request."""
        if self.target is None:
            raise RuntimeError("the request was not admitted")
        return self.target
