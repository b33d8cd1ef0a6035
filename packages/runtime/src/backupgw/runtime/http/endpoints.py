"""/healthz, /readyz and /metrics in front of a service's application.

The paths match exactly, and only for GET and HEAD: a repository called `healthz` is still served,
because requests to repositories go to paths below it or end in a slash.

A service adds what only it knows by attributes of its application (or of `app.state`):

    ready() -> awaitable bool               whether it can do its work (places open, database there)
    metrics_allowed(scope) -> awaitable int 200, or the status of the refusal: 401, 403, 429
    before_metrics() -> awaitable None      brings metrics of its own up to date
    publish_metrics() -> None               every second: shows what was counted for metrics since
    before_stop() -> None                   ends answers that go on for ever, such as event streams
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from backupgw.runtime.http.state import HostState

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT = b"text/plain; charset=utf-8"
REFUSALS = {
    401: "Credentials are needed.",
    403: "Metrics are not offered to you.",
    429: "Too many attempts; try again later.",
}


def hook(app: App, name: str) -> Any:
    """Return what a service offers under `name`, or None."""
    found = getattr(app, name, None)
    return found if found is not None else getattr(getattr(app, "state", None), name, None)


class Endpoints:
    """An ASGI application around a service's.

    Calling it returns the service's own awaitable wherever possible: a request to the service
    costs one look-up in a set.
    """

    def __init__(self, app: App, host: HostState, publish: Callable[[], None] | None) -> None:
        """Wrap `app`.

        Args:
            app: the service's application.
            host: its limits and state.
            publish: brings the host's own metrics up to date; None: no /metrics.
        """
        self._app = app
        self._host = host
        self._publish = publish
        self._answers: dict[str, Callable[[Scope], Awaitable[tuple[int, bytes, bytes]]]] = {
            "/healthz": self._health,
            "/readyz": self._ready,
        }
        if publish is not None:
            self._answers["/metrics"] = self._metrics

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer, or let the service answer."""
        if (
            scope["type"] == "http"
            and scope["path"] in self._answers
            and scope["method"] in ("GET", "HEAD")
        ):
            return self._answer(scope, send)
        if scope["type"] == "lifespan":
            return self._live(scope, receive, send)
        return self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            # A stop at once does not wait for the application, and that is nobody's failure.
            if not self._host.stopping:
                raise

    async def _answer(self, scope: Scope, send: Send) -> None:
        status, kind, body = await self._answers[scope["path"]](scope)
        headers = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        if status == 401:
            headers.append((b"www-authenticate", b'Basic realm="backupgw", charset="UTF-8"'))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _health(self, _scope: Scope) -> tuple[int, bytes, bytes]:
        return 200, TEXT, b"ok\n"

    async def _ready(self, _scope: Scope) -> tuple[int, bytes, bytes]:
        if self._host.stopping:
            return 503, TEXT, b"stopping\n"
        ready = hook(self._app, "ready")
        try:
            answer = True if ready is None else await ready()
        except Exception:  # whatever keeps a service from telling keeps it from working
            logger.exception("readiness could not be found out")
            answer = False
        return (200, TEXT, b"ready\n") if answer else (503, TEXT, b"not ready\n")

    async def _metrics(self, scope: Scope) -> tuple[int, bytes, bytes]:
        # Imported late: whoever serves nothing needs no prometheus_client.
        from backupgw.runtime import metrics

        if not self._host.options.metrics_open:
            allowed = hook(self._app, "metrics_allowed")
            status = 403 if allowed is None else await allowed(scope)
            if status != 200:
                text = REFUSALS.get(status, REFUSALS[403])
                return status, TEXT, f"{text}\n".encode()
        before = hook(self._app, "before_metrics")
        if before is not None:
            await before()
        assert self._publish is not None
        self._publish()
        return 200, metrics.CONTENT_TYPE.encode(), metrics.exposition()
