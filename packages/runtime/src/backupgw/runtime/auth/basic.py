"""HTTP Basic authentication against a htpasswd file, for an event loop.

    user = auth.authenticate_cached(header)
    if user is None and header is not None:
        user = await auth.authenticate(header, address)      # may raise Throttled

A credential that was right is remembered by its keyed hash, so all but a client's first request
cost about a microsecond; the answer holds while the user's line in the file stays as it is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from .htpasswd import Htpasswd
from .throttle import Throttle
from .turns import Turns

LOOK_INTERVAL = 2.0
"""Seconds between looks at the file while only remembered credentials come in."""
LOOK_PATIENCE = 1.0
"""Seconds that a verification waits for a look at the file that is under way."""

MAX_HEADER_BYTES = 8192
MAX_USER_BYTES = 256

_log = logging.getLogger(__name__)


class Credential(NamedTuple):
    """What a client says it is. The password is bytes as sent."""

    user: str
    password: bytes

    def __repr__(self) -> str:
        return f"Credential(user={self.user!r}, password=***)"


def parse_basic(header: bytes | None) -> Credential | None:
    """Return the credential of an Authorization header; None for whatever else it is (RFC 7617).

    restic sends `Basic Og==`, an empty user and password, when it was given none: that is None.
    """
    if header is None or len(header) > MAX_HEADER_BYTES:
        return None
    scheme, _, encoded = header.strip(b" \t").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(b" "), validate=True).partition(b":")
        user = name.decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    if not colon or not user or len(name) > MAX_USER_BYTES:
        return None
    return Credential(user, password)


class _Known(NamedTuple):
    user: str
    digest: str
    until: float


@dataclass(slots=True, eq=False)
class _Flight:
    """A verification in line or under way, and those who wait for it."""

    future: asyncio.Future[str | None]
    waiting: int = 0
    running: bool = False
    addresses: set[str] = field(default_factory=set)


class BasicAuthenticator:
    """Belongs to one event loop; `reload` may be called from anywhere.

    Args:
        htpasswd: the users.
        throttle: what a wrong password costs; by default counted by all workers together, for
            this file alone.
        threads: verifications at once; bcrypt keeps a core busy for each.
        lifetime: seconds that a right credential is remembered before bcrypt is asked again. Until
            its user's line changes, it then still passes the throttle and goes first in line, so
            that a flood of guesses never cuts off who is already in.
        size: credentials remembered.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        htpasswd: Htpasswd,
        *,
        throttle: Throttle | None = None,
        threads: int = 2,
        lifetime: float = 3600.0,
        size: int = 16_384,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = htpasswd
        self._throttle = throttle or Throttle(name=_throttle_name(htpasswd.path), clock=clock)
        self._lifetime = lifetime
        self._size = size
        self._clock = clock
        self._key = os.urandom(32)
        self._known: dict[bytes, _Known] = {}
        self._flights: dict[bytes, _Flight] = {}
        # One thread more than verifications at once, for looking at the file.
        self._executor = ThreadPoolExecutor(threads + 1, thread_name_prefix="auth")
        self._turns = Turns[str | None](self._executor, at_once=threads)
        self._next_look = clock() + LOOK_INTERVAL

    def authenticate_cached(self, header: bytes | None) -> str | None:
        """Return the user if this very header was right before, else None. Never waits.

        None says nothing about the credential: ask `authenticate`.
        """
        if header is None:
            return None
        now = self._clock()
        if now >= self._next_look:
            self._look(now)
        known = self._known.get(blake2b(header, digest_size=16, key=self._key).digest())
        if known is None or now >= known.until or self._file.users.get(known.user) != known.digest:
            return None
        return known.user

    async def authenticate(self, header: bytes | None, address: str = "") -> str | None:
        """Return the user if the credential is right, else None.

        Args:
            header: the value of the Authorization header; None or a malformed one is no credential.
            address: the client's IP address, or anything that tells clients apart.

        Raises:
            Throttled: too many failures of this user name or from this address, or too many
                clients in line; the credential was not looked at.
        """
        if (user := self.authenticate_cached(header)) is not None:
            return user
        credential = parse_basic(header)
        if header is None or credential is None:
            return None
        key = blake2b(header, digest_size=16, key=self._key).digest()
        proven = self._proven(key)
        if not proven:
            self._throttle.check(address, credential.user)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._take_off(key, credential, address, proven=proven)
        flight.waiting += 1
        flight.addresses.add(address)
        try:
            digest = await asyncio.shield(flight.future)
        except asyncio.CancelledError:
            if flight.waiting == 1 and not flight.running:
                # Nobody waits any more: out of the line. One that runs is counted all the same,
                # or hanging up early would make guesses free.
                self._flights.pop(key, None)
                flight.future.cancel()
            raise
        finally:
            flight.waiting -= 1
        return None if digest is None else credential.user

    def reload(self) -> None:
        """Read the file again, now, on a thread (SIGHUP). What is wrong with it is logged."""
        self._submit(self._file.reload)

    def close(self) -> None:
        """End the threads. Verifications under way are not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _proven(self, key: bytes) -> bool:
        known = self._known.get(key)
        return known is not None and self._file.users.get(known.user) == known.digest

    def _take_off(
        self, key: bytes, credential: Credential, address: str, *, proven: bool
    ) -> _Flight:
        def verify() -> str | None:
            # Here a look costs nothing beside bcrypt, so a user added just now can log in.
            self._file.refresh(LOOK_PATIENCE)
            return self._file.verify(*credential)

        def admit() -> None:
            # Others of the same address may have failed while this one stood in line.
            if not proven:
                self._throttle.check(address, credential.user)
            flight.running = True

        def land(done: asyncio.Future[str | None]) -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            # Asking for the exception keeps asyncio from complaining when no one waits any more.
            if not done.cancelled() and done.exception() is None:
                self._judge(key, credential.user, flight.addresses, done.result())

        flight = _Flight(asyncio.get_running_loop().create_future())
        flight.future = self._turns.queue(address, verify, admit, proven=proven)
        self._flights[key] = flight
        flight.future.add_done_callback(land)
        return flight

    def _judge(self, key: bytes, user: str, addresses: set[str], digest: str | None) -> None:
        if digest is None:
            # Once for each address: a client's parallel connections make the same mistake.
            for address in addresses:
                self._throttle.failed(address, user)
                _log.warning("login failed: user %r from %s", user, address or "somewhere")
            return
        for address in addresses:
            self._throttle.succeeded(address, user)
        self._known.pop(key, None)
        while len(self._known) >= self._size:
            del self._known[next(iter(self._known))]
        self._known[key] = _Known(user, digest, self._clock() + self._lifetime)

    def _look(self, now: float) -> None:
        self._next_look = now + LOOK_INTERVAL
        self._submit(self._file.refresh)

    def _submit(self, call: Callable[[], None]) -> None:
        try:
            self._executor.submit(call)
        except RuntimeError:
            # Closed: the process is stopping, and nobody will ask for what the file says.
            _log.debug("the password file is not looked at any more")


def _throttle_name(path: str) -> str:
    return f"logins-{blake2b(path.encode(errors='surrogateescape'), digest_size=8).hexdigest()}"
