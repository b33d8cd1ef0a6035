"""Events of the Wings behind us, told among our own.

A client opens one event stream for a node. What Wings itself tells of the servers asked for
(status, statistics, console output) is taken from its stream and handed on. A Wings that has no
such route (Pterodactyl's and stock Pelican's have none) tells nothing; one that is away is asked
again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from .event_hub import BACKUP_COMPLETED, RESTORE_COMPLETED, Listening, frame
from .upstream import Upstream

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds until Wings is asked again."""
LARGEST = 1 << 20
"""Bytes of one event; a larger one is dropped."""
SILENCE = 60.0
"""Seconds without a byte, keep-alives too, after which a stream is taken for dead. Wings sends one
every 15 seconds."""


class _Event(NamedTuple):
    name: str
    data: str


class UpstreamEvents:
    """`OtherEvents`: those of the Wings behind us.

    Args:
        upstream: how Wings is reached.
        token: the node's.
    """

    def __init__(self, upstream: Upstream, token: str) -> None:
        self._upstream = upstream
        self._authorization = f"Bearer {token}".encode()

    async def follow(self, servers: Sequence[str], client: Listening) -> None:
        """Give Wings' events to `client` until cancelled, or until Wings says it has none."""
        pause = FIRST_PAUSE
        while True:
            try:
                heard = await self._listen(servers, client)
                if heard is None:
                    return
                if heard:
                    pause = FIRST_PAUSE
            except (httpx.HTTPError, TimeoutError) as error:
                log.debug("Wings' events broke off: %s", str(error) or type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _listen(self, servers: Sequence[str], client: Listening) -> bool | None:
        """Return whether anything came before the stream ended; None: there is no such route."""
        target = "/api/events?servers=" + quote(",".join(servers), safe=",")
        headers = [
            (b"host", httpx.URL(self._upstream.url).netloc),
            (b"authorization", self._authorization),
            (b"accept", b"text/event-stream"),
        ]
        request = self._upstream.request("GET", target.encode(), headers)
        answer = await self._upstream.ask(request)
        try:
            if answer.status_code in (404, 405, 501):
                log.debug("Wings has no events of its own")
                return None
            kind = answer.headers.get("content-type", "")
            if answer.status_code != 200 or not kind.startswith("text/event-stream"):
                log.warning("Wings' events are answered by status %d", answer.status_code)
                return False
            heard = False
            async for event in _events(answer.stream):
                heard = True
                _hand_on(event, client)
            return heard
        finally:
            await answer.aclose()


def _hand_on(event: _Event, client: Listening) -> None:
    if event.name in (BACKUP_COMPLETED, RESTORE_COMPLETED):
        return  # backups are ours; it has made none
    try:
        document = json.loads(event.data)
    except ValueError:
        return
    if isinstance(document, dict) and document.get("server_id") in client.servers:
        client.add(frame(event.name, document))


async def _events(stream: Any) -> AsyncIterator[_Event]:
    """Yield the events of a stream (HTML, 9.2.6).

    Raises:
        TimeoutError: nothing came for SILENCE seconds.
    """
    rest = b""
    name, data, size = "", list[str](), 0
    pieces = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        *lines, rest = (rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        size += len(piece)
        if size > LARGEST:
            rest, data = b"", []
        for line in lines:
            field, _, value = line.decode(errors="replace").partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    yield _Event(name or "message", "\n".join(data))
                name, data, size = "", [], 0
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
