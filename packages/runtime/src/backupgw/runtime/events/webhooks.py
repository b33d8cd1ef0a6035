"""Hooks that POST an event as JSON to a URL, signed.

2xx is success. Redirects are not followed: a signed body goes to whom the settings name and to
nobody else. What cannot succeed later (3xx and 4xx but 408, 421, 425 and 429) is given up at once;
the rest, lost connections and 5xx among it, is tried again, not before a Retry-After.
The URL may be a secret itself (chat services have tokens in theirs), so no message names it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

from .hooks import Outcome, Result
from .journal import Letter
from .signature import sign

# They log URLs at info, and headers at debug.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

AGENT = "backupgw-webhook/1"
LONGEST_ANSWER = 64 << 10
"""Bytes of an answer that are read."""
READ_OUT = 2.0
"""Seconds that reading an answer's body may take."""
TRY_AGAIN = frozenset({408, 421, 425, 429})
"""Statuses below 500 that say "not now"."""


@dataclass(frozen=True)
class Endpoint:
    """Where a webhook points. Everything here may be secret.

    Attributes:
        key: signs the bodies (`signature.key_of`); None: they are not signed.
        ca_file: certificates to trust instead of the system's.
    """

    url: str = field(repr=False)
    key: bytes | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    ca_file: str | None = None


class WebhookCarrier:
    """POSTs each letter once. The time limit is for everything from the name's look-up on."""

    def __init__(self, endpoint: Endpoint, time_limit: float) -> None:
        """Describe a webhook.

        Args:
            time_limit: seconds for one attempt.

        Raises:
            OSError: `ca_file` cannot be read or holds no certificates.
        """
        self._endpoint = endpoint
        self.time_limit = time_limit
        self._tls = ssl.create_default_context(cafile=endpoint.ca_file)
        self._runner: asyncio.Runner | None = None
        self._client: httpx.AsyncClient | None = None
        self._lock = threading.Lock()
        self._interrupted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Outcome] | None = None

    def deliver(self, letter: Letter) -> Outcome:
        if self._runner is None:
            # A loop of this thread alone; asyncio can end an attempt wherever it hangs.
            self._runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
            self._client = httpx.AsyncClient(
                verify=self._tls, trust_env=False, follow_redirects=False, timeout=self.time_limit
            )
        return self._runner.run(self._within_limits(letter))

    async def _within_limits(self, letter: Letter) -> Outcome:
        task = asyncio.ensure_future(self._post(letter))
        with self._lock:
            if self._interrupted:
                task.cancel()
            self._loop, self._task = asyncio.get_running_loop(), task
        try:
            done, _ = await asyncio.wait((task,), timeout=self.time_limit)
            if not done:
                task.cancel()
                await asyncio.wait((task,))
                if task.cancelled():
                    return Outcome(Result.FAILED, f"no answer within {self.time_limit:g} s")
            return Outcome(Result.INTERRUPTED) if task.cancelled() else task.result()
        finally:
            with self._lock:
                self._loop = self._task = None

    async def _post(self, letter: Letter) -> Outcome:
        assert self._client is not None
        body = letter.text.encode()
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": AGENT,
            **self._endpoint.headers,
            "Webhook-Id": letter.id,
            "Webhook-Timestamp": str(timestamp),
        }
        if self._endpoint.key is not None:
            headers["Webhook-Signature"] = sign(self._endpoint.key, letter.id, timestamp, body)
        try:
            async with self._client.stream(
                "POST", self._endpoint.url, content=body, headers=headers
            ) as response:
                status, after = response.status_code, response.headers.get("Retry-After")
                await _read_out(response)
        except httpx.ConnectError as error:
            # The one error whose text is of the system and not of the request.
            return Outcome(Result.FAILED, f"cannot connect: {error}")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return Outcome(Result.FAILED, f"the request failed: {type(error).__name__}")
        return judge(status, after)

    def interrupt(self) -> None:
        with self._lock:
            self._interrupted = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def close(self) -> None:
        if self._runner is not None:
            assert self._client is not None
            with self._runner as runner:
                runner.run(self._client.aclose())


async def _read_out(response: httpx.Response) -> None:
    """Read a short answer, so that the connection can be used again.

    The status has said all that counts: an answer that breaks off must not make a delivered event
    be delivered twice.
    """
    read = 0
    with contextlib.suppress(httpx.HTTPError, TimeoutError):
        async with asyncio.timeout(READ_OUT):
            async for piece in response.aiter_raw():
                read += len(piece)
                if read > LONGEST_ANSWER:
                    return


def judge(status: int, retry_after: str | None) -> Outcome:
    """Return what an answer's status means."""
    reason = f"the endpoint answered {status}"
    if 200 <= status < 300:
        return Outcome(Result.DELIVERED)
    if status >= 500 or status in TRY_AGAIN:
        return Outcome(Result.FAILED, reason, _seconds(retry_after))
    if 300 <= status < 400:
        reason += ", a redirect, which is not followed"
    return Outcome(Result.REFUSED, reason)


def _seconds(retry_after: str | None) -> float | None:
    """Read Retry-After (RFC 9110, 10.2.3): seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - time.time())
