"""The ASGI application of one API: route, authenticate, check, call, answer."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from backupgw.runtime.http.incoming import ClientGone
from backupgw.runtime.threads import Threads

from ..identity import NOBODY, Identity
from ..problems import Problem, problem_of
from .cors import Cors
from .exchange import Exchange
from .operation import Answer, Auth, Call, NoModel, Operation
from .router import Router, body_of, parameters_of

log = logging.getLogger(__name__)

Observe = Callable[[Exchange, Operation | None, Problem | None, float], None]
"""Called when a request has ended, with the seconds that it took."""

_NOTHING = NoModel()


class Authenticate(Protocol):
    """Finds out who asks."""

    def known(self, exchange: Exchange) -> Identity | None:
        """Return who asks where that needs no waiting."""

    async def identify(self, exchange: Exchange) -> Identity:
        """Return who asks. Raises Problem 401, 403, 429 or 503."""


class Source(Protocol):
    """Knows of users what others say."""

    def known(self, who: Identity) -> bool:
        """Whether there is nothing to ask, where that needs no waiting to tell."""

    def refresh(self, who: Identity) -> None:
        """Ask. Raises Problem for a user who is turned away."""


class Api:
    """The ASGI callable of one API.

    Args:
        ready: whether everything that it stands on is there.
        source: is asked of who asks before anything is done for them.
    """

    def __init__(
        self,
        router: Router,
        authenticate: Authenticate,
        threads: Threads,
        cors: Cors,
        *,
        ready: Callable[[], bool],
        observe: Observe,
        source: Source | None = None,
    ) -> None:
        self._router = router
        self._authenticate = authenticate
        self._threads = threads
        self._cors = cors
        self._is_ready = ready
        self._observe = observe
        self._source = source

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer a request."""
        return self._answer(Exchange(scope, receive, send, self._cors.common(scope)))

    async def ready(self) -> bool:
        """Whether work can be done."""
        try:
            return await self._threads.run(self._is_ready)
        except Exception as error:  # noqa: BLE001 - whatever it is, the gateway is not ready
            log.warning("not ready: %s", error)
            return False

    async def metrics_allowed(self, scope: Scope) -> int:
        """Return 200 for who may see the metrics, else the status of the refusal."""
        exchange = Exchange(scope, _no_body, _no_answer, [])
        try:
            await self._who(exchange)
        except Problem as problem:
            return problem.status
        return 200

    async def _answer(self, exchange: Exchange) -> None:
        begun = time.perf_counter()
        operation: Operation | None = None
        problem: Problem | None = None
        raw_path: bytes = exchange.scope["raw_path"]
        try:
            if exchange.method == "OPTIONS" and (
                self._cors.is_preflight(exchange) or not self._router.has("OPTIONS", raw_path)
            ):
                await self._cors.preflight(exchange, self._router.methods(raw_path))
                return
            operation, path = self._router.find(exchange.method, raw_path)
            await self._serve(exchange, operation, path)
        except ClientGone:
            return
        except OSError as error:
            if exchange.started:
                raise  # the client left in the middle of its answer: the host knows
            problem = problem_of(error, _told(exchange))
            await exchange.refuse(problem)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the client is told
            problem = problem_of(error, _told(exchange))
            await exchange.refuse(problem)
        finally:
            self._observe(exchange, operation, problem, time.perf_counter() - begun)

    async def _serve(self, exchange: Exchange, operation: Operation, path: dict[str, str]) -> None:
        who = NOBODY if operation.auth is Auth.OPEN else await self._who(exchange)
        if self._source is not None and not self._source.known(who):
            await self._threads.run(self._source.refresh, who)
        exchange.folder = path.get("folder")
        query: bytes = exchange.scope["query_string"]
        parameters = parameters_of(operation.parameters, path, query)
        body: Any = _NOTHING
        if operation.body is not None:
            body = body_of(operation.body, await exchange.json())
            exchange.folder = exchange.folder or folder_in(getattr(body, "vfid", None))
        call: Call[Any, Any] = Call(who, parameters, body, exchange)
        handler: Any = operation.handler
        if inspect.iscoroutinefunction(handler):
            result = await handler(call)
        else:
            result = await self._threads.run(handler, call)
        if exchange.started or (operation.raw and result is None):
            return
        if not isinstance(result, Answer):
            result = Answer(result)
        status = operation.status if result.status is None else result.status
        await exchange.answer_model(status, result.model, result.headers)

    async def _who(self, exchange: Exchange) -> Identity:
        who = self._authenticate.known(exchange) or await self._authenticate.identify(exchange)
        exchange.scope.setdefault("state", {})["user"] = who.user
        return who


def folder_in(reference: str | None) -> str | None:
    """Return the folder's id in a `vfid`."""
    return None if reference is None else reference.rpartition("/")[2]


def _told(exchange: Exchange) -> str:
    """Return a request for the log, without its query, which may hold a token."""
    return f"{exchange.method} {exchange.scope['path']}"


async def _no_body() -> Any:
    return {"type": "http.disconnect"}


async def _no_answer(_message: Any) -> None:
    return None
