"""How requests to Drime are made: by which connection, when Drime wants them, and what becomes of
their errors.

pydrime's client makes those that carry JSON. Its uploads want a file and its downloads hold the
whole of one, and neither is told again what Drime says to a refusal, so such requests are ours: to
the same routes, with the key that its client has.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlencode
from urllib.request import getproxies

import httpx
from pydrime import DrimeClient
from pydrime.exceptions import DrimeAPIError

from ..layers.retry_schedule import Schedule, Trials
from . import drime_errors
from .api_calls import OnCall, route
from .drime_links import Links
from .drime_transport import Transport
from .errors import BackendError, BackendMustBeOpen, PermissionDenied

T = TypeVar("T")

_CONNECTIONS = 64

# It tells of every request, with the signatures of URLs.
logging.getLogger("httpx").setLevel(logging.WARNING)


def _tell(on_call: OnCall, where: str, request: httpx.Request) -> None:
    on_call(f"{request.method} {where}" if where else route(request.method, request.url.path))


def _client(timeout: float, headers: dict[str, str]) -> httpx.Client:
    """Return a client for requests of our own; through a proxy they travel as httpx does it."""
    if getproxies():
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=_CONNECTIONS)
        return httpx.Client(
            headers=headers, timeout=httpx.Timeout(timeout, pool=None), limits=limits
        )
    return httpx.Client(headers=headers, transport=Transport(idle=_CONNECTIONS, timeout=timeout))


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
        self._ours = _client(timeout, key)
        self._strangers = _client(timeout, {})
        """For the storage, which must not see the key."""
        self.links = Links()
        theirs = self._client._get_client()  # it makes one for each thread that is the first
        if on_call is not None:
            for client in (theirs, self._ours):
                client.event_hooks["request"].append(partial(_tell, on_call, ""))
            self._strangers.event_hooks["request"].append(partial(_tell, on_call, "storage"))
        self._closed = threading.Event()
        self.schedule = dataclasses.replace(schedule, sleep=self._sleep)
        self._lock = threading.Lock()
        self._not_before = 0.0
        """Monotonic time until which Drime wants no request, as it told any thread."""

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

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise BackendMustBeOpen("the place was closed")

    def _admit(self) -> None:
        """Wait until Drime wants requests again."""
        while (wait := self._not_before - time.monotonic()) > 0:
            self._sleep(wait)
        if self._closed.is_set():
            raise BackendMustBeOpen("the place was closed")

    def _heed(self, error: BackendError) -> BackendError:
        """Note what an error asks of everybody; return it."""
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
        response = self._send(
            what, self._ours.build_request("POST", self._base + route, json=asked)
        )
        return self._json(what, response)

    def _get(self, what: str, route: str, asked: dict[str, str]) -> dict[str, Any]:
        """Make a request of pydrime's client by ours, which takes less of the processor."""
        url = f"{self._base}{route}?{urlencode(asked)}"
        return self._json(what, self._send(what, self._ours.build_request("GET", url)))

    def _send(
        self, what: str, request: httpx.Request, *, stranger: bool = False, stream: bool = False
    ) -> httpx.Response:
        self._admit()
        client = self._strangers if stranger else self._ours
        try:
            response = client.send(request, stream=stream)
            if response.is_error:
                response.read()
        except httpx.HTTPError as error:
            raise drime_errors.of_transport(error, what) from error
        except RuntimeError as error:  # httpx: the client is closed
            raise BackendMustBeOpen("the place was closed") from error
        if response.is_error:
            response.close()
            message = drime_errors.message_of(response)
            if stranger and response.status_code in (401, 403):
                # A signature that has run out: another is asked for with the next attempt.
                raise BackendError(f"{what}: the storage refuses its signature", retryable=True)
            raise self._heed(
                drime_errors.of_status(response.status_code, response.headers, message, what)
            )
        return response

    def _read(self, what: str, response: httpx.Response) -> None:
        """Read an answer to its end that is not needed, so that its connection is."""
        try:
            response.read()
        except httpx.HTTPError as error:
            raise drime_errors.of_transport(error, what) from error

    def _json(self, what: str, response: httpx.Response) -> dict[str, Any]:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise PermissionDenied(drime_errors.KEY_REFUSED)  # a page to sign in on
        try:
            answer = response.json() if response.content else {}
        except ValueError as error:
            raise BackendError(
                f"{what}: something that is not Drime answers", retryable=True
            ) from error
        if not isinstance(answer, dict):
            raise BackendError(f"{what}: Drime's answer cannot be understood")
        return answer
