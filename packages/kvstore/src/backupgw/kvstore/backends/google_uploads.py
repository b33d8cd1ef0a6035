"""Google's resumable uploads, as Cloud Storage and Drive have them alike.

A session takes the bytes of one value in order, in pieces that are multiples of 256 KiB but for the
last, and shows nothing before it has all. Where its answer was lost, it tells how far it is.
(https://cloud.google.com/storage/docs/performing-resumable-uploads,
https://developers.google.com/workspace/drive/api/guides/manage-uploads#resumable)

Who knows a session's address needs no other key, so addresses are secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from .errors import BackendError, ObjectNotFound
from .google_errors import Refused, Translator

UNIT = 256 << 10
"""Bytes of which every piece but the last has a multiple."""

_PIECE = 1 << 20
_INCOMPLETE = 308
_BAD_REQUEST = 400
_DONE = (200, 201)
_CANCELLED = 499  # Google's own: the client closed the request
_FORGOTTEN = (404, 410)
_SUCCESS = 300


class Pieces:
    """Bytes to be sent, which are not copied and can be sent again."""

    def __init__(self, *parts: bytes | bytearray | memoryview) -> None:
        self._parts = [memoryview(part).cast("B") for part in parts]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[memoryview]:
        for part in self._parts:
            for start in range(0, len(part), _PIECE):
                yield part[start : start + _PIECE]

    def release(self) -> None:
        """Let go of what they were made of."""
        for part in self._parts:
            part.release()


class UploadSession:
    """A session.

    Args:
        http: signs and sends requests.
        url: the session's address.
        translator: of the service.
        what: the item, for messages.
        timeout: seconds, as requests has them.
        new: it was begun just now; else it is asked how far it is.
    """

    def __init__(
        self,
        http: requests.Session,
        url: str,
        translator: Translator,
        what: str,
        timeout: tuple[float, float],
        *,
        new: bool,
    ) -> None:
        self.url = url
        self._http = http
        self._translator = translator
        self._what = what
        self._timeout = timeout
        self._stands: int | None = 0 if new else None
        """Bytes that it has; None where that has to be asked."""

    def put(
        self,
        data: bytes | bytearray,
        offset: int,
        *,
        last: bool,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a part; where the session has some of it already, the rest.

        Args:
            offset: of its first byte in the value.
            last: the value ends with it.
            headers: go with the piece that ends the value.

        Returns:
            The value as the service describes it, when it is complete; else None.

        Raises:
            BackendError: among others, the service knows of no such session.
        """
        try:
            return self._put(data, offset, last, headers)
        except ObjectNotFound as error:
            raise BackendError(
                f"{self._what}: {self._translator.service} has forgotten the upload; it has to be "
                "sent anew"
            ) from error

    def _put(
        self,
        data: bytes | bytearray,
        offset: int,
        last: bool,
        headers: Mapping[str, str] | None,
    ) -> Any:
        end = offset + len(data)
        stands, self._stands = self._stands, None
        if stands is None:
            done, stands = self.ask()
            if done is not None:
                return done
        while last or stands < end:
            if stands < offset or (last and stands > end):
                raise BackendError(
                    f"{self._what}: the upload stands at {stands} bytes, not between {offset} and "
                    f"{end}; it has to be sent anew"
                )
            try:
                done, now = self._send(data, offset, stands, end if last else None, headers)
            except Refused as error:
                if error.answer.status != _BAD_REQUEST:
                    raise
                done, now = self.ask()  # an attempt before this one may still have been under way
                if now == stands:
                    raise
            if done is not None:
                return done
            if now == stands:
                raise BackendError(
                    f"{self._what}: {self._translator.service} takes no more of the upload",
                    retryable=True,
                )
            stands = now
        self._stands = stands
        return None

    def _send(
        self,
        data: bytes | bytearray,
        offset: int,
        at: int,
        total: int | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[Any, int]:
        end = offset + len(data)
        size = "*" if total is None else str(total)
        span = f"bytes {at}-{end - 1}/{size}" if end > at else f"bytes */{size}"
        with memoryview(data) as view, view[at - offset :] as rest:
            pieces = Pieces(rest)
            try:
                return self._request(span, pieces, headers if total is not None else None)
            finally:
                pieces.release()

    def ask(self) -> tuple[Any, int]:
        """Return the value when the session is complete, and how many bytes it has otherwise.

        Raises:
            ObjectNotFound: the service knows of no such session.
        """
        return self._request("bytes */*", None, None)

    def _request(
        self, span: str, body: Pieces | None, headers: Mapping[str, str] | None
    ) -> tuple[Any, int]:
        data: Any = body or b""
        with self._translator.translated(self._what):
            response = self._http.request(
                "PUT",
                self.url,
                data=data,
                headers={
                    "Content-Range": span,
                    "Content-Type": "application/octet-stream",
                    **(headers or {}),
                },
                timeout=self._timeout,
                allow_redirects=False,
            )
            with response:
                if response.status_code == _INCOMPLETE:
                    _ = response.content
                    found = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range", ""))
                    return None, int(found[1]) + 1 if found else 0
                self._translator.check(response, self._what, *_DONE)
                return response.json(), 0

    def cancel(self) -> None:
        """Give the upload up; one that is gone is fine."""
        with self._translator.translated(self._what):
            response = self._http.request(
                "DELETE", self.url, timeout=self._timeout, allow_redirects=False
            )
            with response:
                status = response.status_code
                if status in (_CANCELLED, *_FORGOTTEN) or status < _SUCCESS:
                    return
                try:
                    self._translator.check(response, self._what)
                except ObjectNotFound:
                    return
