"""`GET /download/backup?token=…`: an archive for whoever has an address that the Panel has signed.

The token is a JWT (HS256, with the node's token as the key) that says which backup of which server.
It is good until it ends, and once: it may stand in a browser's history or a proxy's log.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import jwt
from starlette.types import Receive, Scope, Send

from backupgw.runtime.threads import Threads
from backupgw.runtime.tokens.store import TokenStoreError

from .archive import ArchiveError
from .incoming import Refusal, canonical
from .local_archives import LocalArchives

log = logging.getLogger(__name__)

ISSUER = "wings-download"
SCOPE = "backup-download"
LEEWAY = 5.0
"""Seconds that the Panel's clock may be ahead or behind."""
LONGEST = 24 * 3600.0
"""Seconds that a token may be good for; the Panel's are for minutes."""
LONGEST_TOKEN = 8192
PIECE = 256 << 10
_UNIQUE = re.compile(r"[\x21-\x7e]{8,256}\Z")


class TokenRefused(Exception):
    """A token is not good; the message is for the log."""


class Spent(Protocol):
    """What remembers which tokens were used: a `runtime.tokens.TokenStore`."""

    def spend(self, issuer: str, unique: str, until: float, now: float) -> bool:
        """Use an id up; True for exactly one caller."""


@dataclass(frozen=True)
class Ticket:
    """What a good token is for."""

    server: str
    backup: str
    unique: str
    expires: float


class DownloadTokens:
    """Verifies tokens, and uses them up. Safe to use from any thread.

    Args:
        token: the node's.
        spent: outlasts this process, and is shared with others of this node.
    """

    def __init__(self, token: str, spent: Spent) -> None:
        self._key = token.encode()
        self._spent = spent

    def verify(self, text: str, *, now: float) -> Ticket:
        """Return what a token is for. It can be used afterwards still.

        Args:
            now: seconds since 1970.

        Raises:
            TokenRefused: it is not good.
        """
        if not text or len(text) > LONGEST_TOKEN:
            raise TokenRefused("there is none, or it is too long")
        try:
            header = jwt.get_unverified_header(text)
            if header.get("alg") != "HS256" or "crit" in header or "b64" in header:
                raise TokenRefused("its algorithm is not the one agreed")
            claims = jwt.decode(
                text,
                self._key,
                algorithms=["HS256"],
                # Times are compared below; `aud` is the Panel's idea of our address.
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": False,
                    "verify_iss": False,
                    "verify_sub": False,
                    "verify_jti": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise TokenRefused(f"it is not signed by the Panel: {error}") from error
        return _ticket(claims, now)

    def use(self, ticket: Ticket, *, now: float) -> None:
        """Use a token up.

        Raises:
            TokenRefused: it was used before.
            TokenStoreError: nobody can tell.
        """
        # What is kept is of a fixed length, whatever the Panel puts in.
        unique = hashlib.sha256(f"{ticket.backup}\0{ticket.unique}".encode()).hexdigest()
        if not self._spent.spend(ISSUER, unique, ticket.expires + LEEWAY + 1, now):
            raise TokenRefused("it was used before")


def _ticket(claims: dict[str, Any], now: float) -> Ticket:
    expires = _time(claims, "exp")
    if now >= expires + LEEWAY:
        raise TokenRefused("it has expired")
    if expires > now + LONGEST:
        raise TokenRefused("it is good for too long")
    for name in ("nbf", "iat"):
        if name in claims and _time(claims, name) > now + LEEWAY:
            raise TokenRefused("it is not good yet")
    # Pterodactyl's tokens have no scope, and no other kind of them names a backup.
    if claims.get("scope", SCOPE) != SCOPE:
        raise TokenRefused("it is for something else")
    server, backup, unique = (
        claims.get(name) for name in ("server_uuid", "backup_uuid", "unique_id")
    )
    for uuid in (server, backup):
        if not isinstance(uuid, str) or not canonical(uuid):
            raise TokenRefused("it names no server or no backup")
    if not isinstance(unique, str) or not _UNIQUE.match(unique):
        raise TokenRefused("it has no unique_id")
    return Ticket(str(server), str(backup), unique, expires)


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise TokenRefused(f"{name} is no time")
    return float(value)


class Downloads:
    """The route. An ASGI application that raises Refusal where there is nothing to send.

    Args:
        tokens: verifies.
        archives: what can be had.
        threads: where blocking calls run.
        knows: whether a server is this node's; blocks.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        tokens: DownloadTokens,
        archives: LocalArchives,
        threads: Threads,
        knows: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._archives = archives
        self._threads = threads
        self._knows = knows
        self._clock = clock

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer a GET or HEAD."""
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = query.get("token", [])
        try:
            if len(given) != 1:
                raise TokenRefused("there is none, or several")
            ticket = self._tokens.verify(given[0], now=self._clock())
            if not await self._threads.run(self._knows, ticket.server):
                raise Refusal(404, "the requested backup was not found on this node")
            file = await self._threads.run(self._open, ticket)
        except TokenRefused as error:
            log.info("a download was refused: its token: %s", error)
            raise Refusal(403, "the download's address is not valid (any more)") from error
        try:
            if scope["method"] != "HEAD":  # a look uses nothing up
                await self._use(ticket)
            await self._send(ticket, file, scope["method"], send)
        finally:
            os.close(file)

    def _open(self, ticket: Ticket) -> int:
        """Return a descriptor of the archive. Raises Refusal."""
        missing = Refusal(404, "the requested backup was not found on this node")
        try:
            label = self._archives.label(ticket.backup)
            if label not in ("", label_of(ticket.server)):
                log.warning("backup %s is not server %s's", ticket.backup, ticket.server)
                raise missing
            return self._archives.open(ticket.backup)
        except FileNotFoundError:
            raise missing from None
        except ArchiveError as error:
            log.warning("%s", error)
            raise missing from error

    async def _use(self, ticket: Ticket) -> None:
        try:
            await self._threads.run(self._tokens.use, ticket, now=self._clock())
        except TokenRefused as error:
            log.info("a download was refused: its token: %s", error)
            raise Refusal(403, "the download's address is not valid (any more)") from error
        except TokenStoreError as error:
            log.warning("whether a download's token was used cannot be told: %s", error)
            raise Refusal(503, "try again later", {"Retry-After": "10"}) from error

    async def _send(self, ticket: Ticket, file: int, method: str, send: Send) -> None:
        size = os.fstat(file).st_size
        name = f'attachment; filename="{ticket.backup}.tar.gz"'
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % size),
            (b"content-disposition", name.encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        done = size if method == "HEAD" else 0
        while done < size:
            piece = await self._threads.run(os.pread, file, min(size - done, PIECE), done)
            if not piece:
                raise OSError(f"the archive of {ticket.backup} became shorter")
            done += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def label_of(server: str) -> str:
    """Return what an archive says of whose it is."""
    return f"server_uuid:{server}"
