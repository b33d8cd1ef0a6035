"""How borgstore's protocol answers: the status of each error, and what every answer says."""

from __future__ import annotations

from typing import ClassVar

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
from backupgw.kvstore.backends.rest import OURS
from backupgw.kvstore.names import InvalidName
from backupgw.runtime.http.exchange import ANSWER_LINES

from ..exchange import Exchange, lines_of
from ..refusals import Headers, Refusal
from .requests import BadRequest

JSON = (b"content-type", b"application/json")
_NOTHING = (b"content-length", b"0")
_PLAIN: Headers = [(b"content-type", b"text/plain")]

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


class BorgExchange(Exchange):
    """One request and its answer. Texts are answers to programs, and end without a line break."""

    __slots__ = ()

    common: ClassVar[Headers] = [
        (b"cache-control", b"no-store, no-cache, must-revalidate, max-age=0"),
        (OURS.lower().encode(), b"1"),
    ]
    common_lines: ClassVar[bytes] = lines_of(common)

    async def answer(self, status: int, text: str = "", headers: Headers | None = None) -> None:
        """Answer with a text, or nothing; `headers` name its type."""
        if not text:
            at_once = self.scope.get(ANSWER_LINES)
            if at_once is not None and not headers:
                self._started = True
                at_once(status, self.common_lines, b"")
                return
            await self.send_whole(status, [_NOTHING, *(headers or ())], b"")
            return
        body = text.encode(errors="replace")
        head: Headers = [(b"content-length", b"%d" % len(body))]
        await self.send_whole(status, head + (headers or _PLAIN), body)


def refusal_for(error: Exception) -> Refusal:
    """Return the protocol's answer for what went wrong."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    headers: Headers = []
    if status == 500 and isinstance(error, BackendError) and error.retryable:
        status = 503
        if error.retry_after:
            headers = [(b"retry-after", b"%d" % max(1, round(error.retry_after)))]
    return Refusal(status, str(error), headers)
