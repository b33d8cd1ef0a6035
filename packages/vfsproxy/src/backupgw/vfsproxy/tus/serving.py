"""What all verbs of tus stand on: the store, the threads, the terms, and a few words of theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.requests import Request

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.threads import Threads

from ..files.calling import on_thread
from ..files.refusals import FileRefusal, refusal_of
from ..problems import Problem
from . import headers as tus
from .holds import Holds, locked
from .receiving import Terms
from .records import Kind, Upload, UploadLost, UploadStore

T = TypeVar("T")
UrlOf = Callable[[str], str]
"""Returns the URL of an upload by its id, absolute or a path."""

RESUMABLE = {"Tus-Resumable": tus.VERSION}


class Serving:
    """The uploads of a service.

    Args:
        store: remembers them.
        threads: where blocking calls run.
        terms: what holds for all.
        on_done: told of each file that an upload became.
    """

    def __init__(
        self,
        store: UploadStore,
        threads: Threads,
        terms: Terms | None = None,
        on_done: Callable[[Upload], object] = lambda _upload: None,
    ) -> None:
        self._store = store
        self._threads = threads
        self._terms = terms or Terms()
        self._holds = Holds(store, threads)
        self._on_done = on_done

    def _most(self, upload: Upload) -> int | None:
        """Return how many bytes an upload may have."""
        return self._terms.max_size if upload.length is None else upload.length

    def _announce(self, done: Upload) -> None:
        if done.kind is not Kind.PARTIAL:
            self._on_done(done)

    async def _kernel(self, call: Callable[[], T], name: str) -> T:
        try:
            return await on_thread(self._threads, name, call)
        except UploadLost as error:
            raise told(error, name) from error


def told(error: BackendError | UploadLost, name: str) -> Problem:
    """Return what a client is told of an error."""
    if isinstance(error, UploadLost):
        return locked("another request has taken this upload over")
    return refusal_of(error, name)


def gone() -> FileRefusal:
    """Say that an upload is over."""
    return FileRefusal(410, "upload-gone", "this upload is over; start it again")


def method_of(request: Request) -> str:
    """Return the method that a request means: some proxies let only GET and POST through, and the
    protocol has a header for what lies behind them."""
    override = request.headers.get("x-http-method-override")
    return override.upper() if override is not None and request.method == "POST" else request.method


def has_body(sent: Headers) -> bool:
    """Whether bytes of the file come with a request."""
    kind = sent.get("content-type", "").partition(";")[0].strip().lower()
    return kind == tus.OCTETS and (
        sent.get("content-length", "0") != "0" or "transfer-encoding" in sent
    )


def body_end(sent: Headers, offset: int) -> int | None:
    """Return how many bytes an upload has after a body whose length is told."""
    length = tus.number(sent, "Content-Length")
    return None if length is None else offset + length
