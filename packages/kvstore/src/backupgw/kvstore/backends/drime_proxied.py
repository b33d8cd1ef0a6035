"""The way to Drime through a proxy that the environment names: httpx knows how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import cast

import httpx

from .drime_transport import Answer, Begun, Pieces, Request, not_trusted, origin_of
from .errors import BackendConnectionError, BackendMustBeOpen
from .unreached import reason_of

_PIECE = 64 << 10


class Proxied:
    """Connections of httpx. The arguments are those of `drime_straight.Straight`."""

    def __init__(self, headers: Mapping[str, str], *, idle: int, timeout: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=idle)
        self._threads = ThreadPoolExecutor(idle, thread_name_prefix="backupgw-drime-proxied")
        self._client = httpx.Client(
            headers={"User-Agent": "backupgw", **headers},
            timeout=httpx.Timeout(timeout, pool=None),
            limits=limits,
        )

    def send(self, request: Request) -> Answer:
        origin_of(request.url)  # what is no URL; not all of that is an error of httpx's
        headers = {"Accept-Encoding": "identity", **request.headers}
        if request.body:
            headers["Content-Length"] = str(sum(map(len, request.body)))
        try:
            built = self._client.build_request(
                request.method,
                request.url,
                headers=headers,
                content=_in_pieces(request.body) if request.body else None,
            )
            return _ProxiedAnswer(self._client.send(built, stream=True))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise not_trusted(request.url, error) or _broken(error) from error
        except RuntimeError as error:  # httpx: the client is closed
            raise BackendMustBeOpen("the place was closed") from error

    def begin(self, request: Request) -> Begun:
        try:
            return _Coming(self._threads.submit(self.send, request))
        except RuntimeError as error:
            raise BackendMustBeOpen("the place was closed") from error

    def close(self) -> None:
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Coming:
    """A request that a thread makes."""

    def __init__(self, coming: Future[Answer]) -> None:
        self._coming = coming
        self._fetched = False

    def answer(self) -> Answer:
        self._fetched = True
        try:
            return self._coming.result()
        except CancelledError as error:  # no thread had come to it
            raise BackendMustBeOpen("the place was closed") from error

    def drop(self) -> None:
        if not self._fetched and not self._coming.cancel():
            self._coming.add_done_callback(_release)


def _release(coming: Future[Answer]) -> None:
    if coming.exception() is None:
        coming.result().release()


class _ProxiedAnswer:
    """An answer that came over httpx's connections."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self._response = response
        self._pieces = response.iter_raw()
        self._held = b""

    def header(self, name: str) -> str | None:
        return cast(str | None, self._response.headers.get(name))

    def read(self, size: int, /) -> bytes:
        try:
            held = self._held or next(self._pieces, b"")
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _broken(error) from error
        self._held = held[size:]
        return held[:size]

    def read_into(self, buffer: memoryview, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_all(self) -> bytes:
        try:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        finally:
            self.release()

    def release(self) -> None:
        self._response.close()


def _in_pieces(pieces: Pieces) -> Iterator[bytes]:
    """Yield the bytes of a body, some at a time: httpx copies what it is given."""
    for piece in pieces:
        for start in range(0, len(piece), _PIECE):
            yield bytes(memoryview(piece)[start : start + _PIECE])


def _broken(error: Exception) -> BackendConnectionError:
    # What httpx says may hold the URL, which is signed.
    return BackendConnectionError(reason_of(error))
