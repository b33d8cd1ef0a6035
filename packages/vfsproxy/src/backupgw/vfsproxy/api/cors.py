"""Web pages of other origins may use the API (Fetch standard, 3.2): on every answer, refusals too.

No cookie says who somebody is here, so an origin gets nothing that it has no token for.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

from .exchange import Exchange, Headers

EXPOSED = (
    b"Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Last-Modified, "
    b"Link, Location, Retry-After, Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size, "
    b"Tus-Resumable, Tus-Version, Upload-Concat, Upload-Defer-Length, Upload-Expires, "
    b"Upload-Length, Upload-Metadata, Upload-Offset, X-Next-Cursor"
)
ALLOWED_HEADERS = (
    b"Authorization, Content-Type, If-Match, If-None-Match, If-Range, Range, Tus-Resumable, "
    b"Upload-Checksum, Upload-Concat, Upload-Defer-Length, Upload-Length, Upload-Metadata, "
    b"Upload-Offset, X-BackendAI-Storage-Auth-Token, X-HTTP-Method-Override, X-Requested-With"
)
SECONDS = b"7200"


class Cors:
    """What pages of which origins may do.

    Args:
        origins: such as "https://panel.example"; "*" is any.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins)

    def common(self, scope: Scope) -> Headers:
        """Return the headers of every answer to a request."""
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        if self._any:
            headers: Headers = [(b"access-control-allow-origin", b"*")]
        else:
            headers = [(b"vary", b"Origin")]
            if origin not in self._origins:
                return headers
            headers.append((b"access-control-allow-origin", origin))
        if origin is not None:
            headers.append((b"access-control-expose-headers", EXPOSED))
        return headers

    def is_preflight(self, exchange: Exchange) -> bool:
        """Whether a browser asks what a page may do."""
        return exchange.header(b"access-control-request-method") is not None

    async def preflight(self, exchange: Exchange, methods: Sequence[str]) -> None:
        """Answer a browser."""
        allow = ", ".join(methods).encode()
        headers: Headers = [
            (b"allow", allow),
            (b"access-control-allow-methods", allow),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", SECONDS),
        ]
        await exchange.answer(204, headers)
