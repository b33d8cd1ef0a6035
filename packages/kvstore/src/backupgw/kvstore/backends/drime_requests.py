"""How requests to Drime are made: by which connection, when Drime wants them, and what becomes of
their errors.

pydrime's client makes those that carry JSON. Its uploads want a file and its downloads hold the
whole of one, and neither is told again what Drime says to a refusal, so such requests are ours: to
the same routes, with the key that its client has.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus as Http
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx
from pydrime import DrimeClient
from pydrime.exceptions import DrimeAPIError

from ..layers.retry_schedule import Schedule, Trials
from . import drime_errors
from .api_calls import OnCall, route
from .drime_links import Links
from .drime_proxied import Proxied
from .drime_straight import Straight
from .drime_transport import Answer, Begun, Request
from .errors import BackendConnectionError, BackendError, BackendMustBeOpen, PermissionDenied

T = TypeVar("T")

_CONNECTIONS = 64

_LIMITED = 120.0
"""Seconds after a refusal for which requests count as limited: Drime counts them by the minute."""

_REFUSALS = int(Http.BAD_REQUEST)
"""The lowest status of an answer that is none."""

# It tells of every request, with the signatures of URLs.
logging.getLogger("httpx").setLevel(logging.WARNING)


def _tell(on_call: OnCall, request: httpx.Request) -> None:
    on_call(route(request.method, request.url.path))


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Let errors of connections tell what was to be done."""
    try:
        yield
    except BackendMustBeOpen as error:
        raise BackendMustBeOpen("the place was closed") from error
    except BackendConnectionError as error:
        raise drime_errors.of_transport(error, what) from error


class Requests:
    """A connection to one workspace.

    Args:
        api_key: the account's.
        api_url: base of the API, None for Drime's own.
        workspace: its number, 0 for the personal one.
        timeout: seconds without a byte after which a connection counts as broken.
        schedule: how often and how long `repeated` tries.
        on_call: is told of each request.
    """

    def __init__(
        self,
        api_key: str,
        api_url: str | None,
        workspace: int,
        *,
        timeout: float,
        schedule: Schedule,
        on_call: OnCall | None = None,
    ) -> None:
        # Refusals are told to us, not waited for inside.
        self._client = DrimeClient(api_key=api_key, api_url=api_url, max_retries=0, timeout=timeout)
        self.workspace = workspace
        self._base = str(self._client.api_url).rstrip("/")
        key = {"Authorization": f"Bearer {api_key}"}
        way = Proxied if getproxies() else Straight
        self._ours = way(key, idle=_CONNECTIONS, timeout=timeout)
        self._strangers = way({}, idle=_CONNECTIONS, timeout=timeout)
        """For the storage, which must not see the key."""
        self.links = Links()
        self._on_call = on_call
        theirs = self._client._get_client()  # it makes one for each thread that is the first
        if on_call is not None:
            theirs.event_hooks["request"].append(partial(_tell, on_call))
        self._closed = threading.Event()
        self.schedule = dataclasses.replace(schedule, sleep=self.wait)
        self._lock = threading.Lock()
        self._not_before = 0.0
        """Monotonic time until which Drime wants no request, as it told any thread."""
        self._limited_until = 0.0

    def close(self) -> None:
        """End pauses and connections."""
        self._closed.set()
        self._client.close()
        self._ours.close()
        self._strangers.close()

    # -- how requests are made

    def repeated(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, tried again where its error says that this may help."""
        trials = Trials(self.schedule)
        while True:
            try:
                return call()
            except BackendError as error:
                trials.pause(error)

    def wait(self, seconds: float) -> None:
        """Do nothing for so long. Raises BackendMustBeOpen when the connection is closed."""
        if self._closed.wait(seconds):
            raise BackendMustBeOpen("the place was closed")

    @property
    def limited(self) -> bool:
        """Whether Drime has refused a request lately because there were too many."""
        return time.monotonic() < self._limited_until

    def _admit(self) -> None:
        """Wait until Drime wants requests again."""
        while (wait := self._not_before - time.monotonic()) > 0:
            self.wait(wait)
        if self._closed.is_set():
            raise BackendMustBeOpen("the place was closed")

    def _heed(self, error: BackendError) -> BackendError:
        """Note what an error asks of everybody; return it."""
        if isinstance(error, drime_errors.TooMany):
            self._limited_until = time.monotonic() + _LIMITED
        if error.retry_after:
            with self._lock:
                until = time.monotonic() + min(error.retry_after, self.schedule.deadline)
                self._not_before = max(self._not_before, until)
        return error

    def _ask(self, what: str, call: Callable[[], Any]) -> dict[str, Any]:
        """Make a request by pydrime's client."""
        self._admit()
        try:
            answer = call()
        except DrimeAPIError as error:
            raise self._heed(drime_errors.of_client(error, what)) from error
        except httpx.HTTPError as error:  # the pool's, which pydrime lets through
            raise drime_errors.of_transport(error, what) from error
        if not isinstance(answer, dict):
            raise BackendError(f"{what}: Drime's answer cannot be understood")
        return answer

    def _post(self, what: str, route: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Make a request that pydrime's client makes only for files."""
        body = json.dumps(asked).encode()
        headers = {"Content-Type": "application/json"}
        return self._json(what, Request("POST", self._base + route, headers, (body,)))

    def _send(self, what: str, request: Request, *, stranger: bool = False) -> Answer:
        """Send a request; return its answer, which is none that refuses it."""
        self._before(request, stranger=stranger)
        way = self._strangers if stranger else self._ours
        return self._accepted(what, lambda: way.send(request), stranger=stranger)

    def _begin(self, what: str, request: Request) -> Begun:
        """Send a GET whose answer `_ended` fetches."""
        self._before(request, stranger=False)
        with _told(what):
            return self._ours.begin(request)

    def _before(self, request: Request, *, stranger: bool) -> None:
        self._admit()
        if self._on_call is not None:
            path = urlsplit(request.url).path
            where = f"{request.method} storage" if stranger else route(request.method, path)
            self._on_call(where)

    def _accepted(
        self, what: str, fetch: Callable[[], Answer], *, stranger: bool = False
    ) -> Answer:
        """Return an answer that is no refusal. Raises what a refusal tells."""
        with _told(what):
            answer = fetch()
            if answer.status < _REFUSALS:
                return answer
            body = answer.read_all()
        if stranger and answer.status in (Http.UNAUTHORIZED, Http.FORBIDDEN):
            # A signature that has run out: another is asked for with the next attempt.
            raise BackendError(f"{what}: the storage refuses its signature", retryable=True)
        message, wait = drime_errors.message_of(body), answer.header("Retry-After")
        raise self._heed(drime_errors.of_status(answer.status, wait, message, what))

    def _read(self, what: str, answer: Answer) -> bytes:
        """Read an answer to its end."""
        with _told(what):
            return answer.read_all()

    def _json(self, what: str, request: Request) -> dict[str, Any]:
        """Return what the answer to a request says."""
        return self._understood(what, self._send(what, request))

    def _ended(self, what: str, begun: Begun) -> dict[str, Any]:
        """Return what the answer to a request says that was begun."""
        return self._understood(what, self._accepted(what, begun.answer))

    def _understood(self, what: str, answer: Answer) -> dict[str, Any]:
        content = self._read(what, answer)
        if "text/html" in (answer.header("Content-Type") or ""):
            raise PermissionDenied(drime_errors.PAGE_ANSWERED)
        try:
            told = json.loads(content) if content else {}
        except ValueError as error:
            raise BackendError(
                f"{what}: something that is not Drime answers", retryable=True
            ) from error
        if not isinstance(told, dict):
            raise BackendError(f"{what}: Drime's answer cannot be understood")
        return told
