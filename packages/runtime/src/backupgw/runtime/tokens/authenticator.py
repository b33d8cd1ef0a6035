"""Tokens in Authorization headers, for an event loop.

    who = tokens.authenticate_cached(header)
    if who is None and is_token(header):
        who = await tokens.authenticate(header, address)

A token comes as `Bearer TOKEN` (RFC 6750) or, for programs that know only passwords, as the
password of HTTP Basic, with the token's user as the user name.

A good token is remembered by its keyed hash, so all but a client's first request cost about a
microsecond. The store is asked every two seconds, on a thread, whether anything was revoked; where
it has not answered for ten, nothing remembered counts any more. So a revoked token is refused by
every process after ten seconds at the very latest, and usually after two.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from ..auth.basic import MAX_HEADER_BYTES, parse_basic
from ..auth.turns import Turns
from ..authorisation.vocabulary import Principal
from .records import PREFIX, TokenRefused, id_of
from .store import TokenStore, TokenStoreError

if TYPE_CHECKING:
    from .signed import SignedTokens

LOOK_INTERVAL = 2.0
"""Seconds between looks for revoked tokens, while requests come in."""
TRUSTED = 10.0
"""Seconds after a look that remembered tokens count."""
NOTE_INTERVAL = 60.0
"""Seconds between notes in the store of which tokens were used."""

_log = logging.getLogger(__name__)


class _Shown(NamedTuple):
    """A token as it came. `user` is what Basic said, None for Bearer."""

    text: str
    user: str | None


class _Known(NamedTuple):
    principal: Principal
    until: float
    """Seconds since 1970."""


def _shown(header: bytes | None) -> _Shown | None:
    if header is None or len(header) > MAX_HEADER_BYTES:
        return None
    scheme, _, value = header.strip(b" \t").partition(b" ")
    try:
        if scheme.lower() == b"bearer":
            return _Shown(value.strip(b" ").decode("ascii"), None)
        credential = parse_basic(header)
        if credential is not None and credential.password.startswith(PREFIX.encode()):
            return _Shown(credential.password.decode("ascii"), credential.user)
    except UnicodeDecodeError:
        return None
    return None


def is_token(header: bytes | None) -> bool:
    """Whether an Authorization header carries a token; else it is for `BasicAuthenticator`."""
    return _shown(header) is not None


class TokenAuthenticator:
    """Belongs to one event loop.

    Args:
        store: the bearer tokens.
        signed: verifies signed tokens, None to refuse them all.
        threads: tokens looked up at once.
        size: tokens remembered.
        clock: seconds, monotonic.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        store: TokenStore,
        signed: SignedTokens | None = None,
        *,
        threads: int = 2,
        size: int = 16_384,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._signed = signed
        self._size = size
        self._clock = clock
        self._wall = wall
        self._key = os.urandom(32)
        self._known: dict[bytes, _Known] = {}
        self._generation = -1
        self._forgotten = 0
        self._trusted_until = float("-inf")
        self._next_look = float("-inf")
        self._next_note = clock() + NOTE_INTERVAL
        self._used: dict[str, float] = {}
        # Looks and lookups change what is remembered, on threads.
        self._lock = threading.Lock()
        # One thread more than lookups at once, for looks at what was revoked.
        self._executor = ThreadPoolExecutor(threads + 1, thread_name_prefix="tokens")
        # No throttle: nobody guesses 256 bits. The line keeps a flood from shutting others out.
        self._turns = Turns[Principal | None](self._executor, at_once=threads)

    def authenticate_cached(self, header: bytes | None) -> Principal | None:
        """Return who showed this very header before, if the token is still good. Never waits.

        None says nothing about the token: ask `authenticate`.
        """
        if header is None:
            return None
        # Read first: a look that ends in between prolongs it for what is known from then on.
        trusted_until = self._trusted_until
        known = self._known.get(self._digest(header))
        if known is None:
            return None
        now, wall = self._clock(), self._wall()
        if now >= self._next_look:
            self._next_look = now + LOOK_INTERVAL
            self._submit(self._look)
        if now >= trusted_until or wall >= known.until:
            return None
        self._note(known.principal, wall, now)
        return known.principal

    async def authenticate(self, header: bytes | None, address: str = "") -> Principal | None:
        """Return who showed a good token, else None.

        Args:
            header: the value of the Authorization header.
            address: the client's IP address, or anything that tells clients apart.

        Raises:
            Throttled: too many clients are in line; the token was not looked at.
            TokenStoreError: the store cannot be read: nothing is known about the token.
        """
        if (principal := self.authenticate_cached(header)) is not None:
            return principal
        shown = _shown(header)
        if header is None or shown is None:
            return None
        digest = self._digest(header)

        def look_up() -> Principal | None:
            try:
                return self._look_up(shown, digest)
            except TokenRefused as error:
                _log.warning("token refused from %s: %s", address or "somewhere", error)
                return None

        # Who was let in before goes first, so that a flood of nonsense cuts nobody off.
        proven = digest in self._known
        principal = await self._turns.queue(address, look_up, _admit, proven=proven)
        if principal is not None:
            self._note(principal, self._wall(), self._clock())
        return principal

    def take_signed(self, signed: SignedTokens) -> None:
        """Take signed tokens as well from now on, from any thread."""
        self._signed = signed
        self.forget()

    def forget(self) -> None:
        """Remember nothing any more: every token is looked up again."""
        with self._lock:
            self._known = {}
            self._forgotten += 1

    async def close(self) -> None:
        """Note what was used, and end the threads."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._write_used)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _digest(self, header: bytes) -> bytes:
        return blake2b(header, digest_size=16, key=self._key).digest()

    def _look_up(self, shown: _Shown, digest: bytes) -> Principal | None:
        now, wall = self._clock(), self._wall()
        # Before the lookup: what is revoked in between makes the next look forget it, and what was
        # good by keys that were exchanged in between is not remembered.
        forgotten = self._forgotten
        generation = self._store.generation()
        until = float("inf")
        identity = id_of(shown.text)
        if identity is not None:
            token = self._store.find(identity)
            if token is None:
                raise TokenRefused(f"there is no token {identity}")
            token.check(shown.text, wall)
            if shown.user not in (None, token.user):
                raise TokenRefused(f"the token {identity} does not belong to {shown.user!r}")
            principal = token.principal
            until = token.expires if token.expires is not None else until
        elif self._signed is None or shown.user is not None:
            raise TokenRefused("it is no token of ours")
        else:
            claims = self._signed.verify(shown.text, now=wall)
            principal, until = claims.principal, claims.expires
        self._remember(digest, _Known(principal, until), generation, forgotten, now)
        return principal

    def _remember(
        self, digest: bytes, known: _Known, generation: int, forgotten: int, now: float
    ) -> None:
        with self._lock:
            self._see(generation, now)
            if (generation, forgotten) != (self._generation, self._forgotten):
                return  # another thread was quicker, and knows more
            self._known.pop(digest, None)
            while len(self._known) >= self._size:
                del self._known[next(iter(self._known))]
            self._known[digest] = known

    def _look(self) -> None:
        now = self._clock()
        try:
            generation = self._store.generation()
        except TokenStoreError as error:
            _log.warning("cannot look for revoked tokens: %s", error)
            return
        with self._lock:
            self._see(generation, now)

    def _see(self, generation: int, now: float) -> None:
        """Take note of what the store's generation was at `now`; generations only grow."""
        if generation > self._generation:
            self._generation = generation
            self._known = {}
        if generation == self._generation:
            self._trusted_until = max(self._trusted_until, now + TRUSTED)

    def _note(self, principal: Principal, wall: float, now: float) -> None:
        # Ids of signed tokens are dropped by the store; there may be any number of them.
        if principal.token and len(self._used) < self._size:
            self._used[principal.token] = wall
        if now >= self._next_note:
            self._next_note = now + NOTE_INTERVAL
            self._submit(self._write_used)

    def _write_used(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            # A copy: the event loop may be about to add to it.
            self._store.note_used(dict(used))
        except TokenStoreError as error:
            # Known again at the next use; no request depends on it.
            _log.warning("cannot note when tokens were used: %s", error)

    def _submit(self, call: Callable[[], None]) -> None:
        try:
            self._executor.submit(call)
        except RuntimeError:
            # Closed: the process is stopping, and nobody will ask any more.
            _log.debug("tokens are not looked at any more")


def _admit() -> None:
    """Everybody may have a token looked up when it is their turn."""
