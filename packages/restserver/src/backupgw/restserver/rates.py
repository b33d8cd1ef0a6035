"""Rates and connections: what one address and one user may ask for, and how fast bodies move.

Too many requests get 429 and Retry-After: of restic's client that is a failure that may pass, and
so it tries again, after a second and then ever longer (not so 403 or 507). A body that is too fast
is not refused, it is taken more slowly, by not reading it: TCP tells the client.

Locks do not count among a user's requests. A client that has used up its rate must be able to renew
its lock, or others would take it for dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from backupgw.kvstore.layers.throttle_rate import Timetable
from backupgw.runtime.auth.throttle import network
from backupgw.runtime.authorisation.patterns import matches
from backupgw.runtime.between_workers import Tally
from backupgw.runtime.rates import Rates

from .refusals import Refusal

_BANDWIDTH_BURST = 0.5
"""Seconds' worth of bytes that may move at once after a pause."""

Pace = Callable[[int], Awaitable[None]]
"""Waits until so many more bytes may follow."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one address or user may do; None is without limit.

    Attributes:
        requests: a second.
        burst: requests at once after a pause.
        connections: requests at the same time.
        upload, download: bytes a second.
    """

    requests: float | None = None
    burst: float = 1.0
    connections: int | None = None
    upload: Timetable | None = None
    download: Timetable | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may do how much.

    Attributes:
        address: every address, or /64 of IPv6, and what connects over a unix socket together.
        users: patterns of names; the first that fits.
        exempt: networks whose addresses have no limit: a proxy's, a monitor's.
    """

    address: Allowed = Allowed()
    users: tuple[tuple[tuple[str, ...], Allowed], ...] = ()
    exempt: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.users) or self.address.requests is not None

    def of(self, user: str) -> Allowed | None:
        """Return what a user may do."""
        for patterns, allowed in self.users:
            if any(matches(pattern, user) for pattern in patterns):
                return allowed
        return None


class Limiter:
    """Holds clients to the rules. Belongs to one event loop.

    Args:
        counts: what all workers count together.
        now: local time, for timetables.
        limited: told what was refused: "address", "user" or "connections".

    Attributes:
        active: whether there are any rules.
    """

    def __init__(
        self,
        rules: Rules,
        counts: Rates,
        *,
        now: Callable[[], datetime] = datetime.now,
        limited: Callable[[str], object] = lambda _what: None,
    ) -> None:
        self.change(rules)
        self._counts = counts
        self._now = now
        self._limited = limited
        self._busy = Tally("requests-rest")

    def change(self, rules: Rules) -> None:
        """Hold clients to other rules from now on; any thread may say so."""
        self._rules = rules
        self.active = bool(rules)

    def close(self) -> None:
        """Let go of the counts."""
        self._counts.close()
        self._busy.close()

    def check_address(self, address: str) -> None:
        """Count a request of an address, before anybody knows whose it is.

        Raises:
            Refusal: 429.
        """
        allowed = self._rules.address
        if allowed.requests is None or self._is_exempt(address):
            return
        wait = self._counts.take(f"address {network(address)}", allowed.requests, allowed.burst)
        if wait:
            self._refuse("address", "too many requests from this address", wait)

    def check_user(self, user: str) -> None:
        """Count a request of a user.

        Raises:
            Refusal: 429.
        """
        allowed = self._rules.of(user)
        if allowed is None or allowed.requests is None:
            return
        wait = self._counts.take(f"user {user}", allowed.requests, allowed.burst)
        if wait:
            self._refuse("user", f"too many requests of {user or 'nobody'}", wait)

    @contextlib.contextmanager
    def connected(self, user: str) -> Iterator[None]:
        """Hold one of a user's connections.

        Raises:
            Refusal: 429, since there are too many.
        """
        allowed = self._rules.of(user)
        most = None if allowed is None else allowed.connections
        self._busy.add(user, 1)
        try:
            if most is not None and self._busy.total(user) > most:
                text = f"{user or 'nobody'} may use {most} connections at a time"
                self._refuse("connections", text, 1.0)
            yield
        finally:
            self._busy.add(user, -1)

    def upload(self, user: str) -> Pace | None:
        """Return what paces a user's uploads, None where nothing does."""
        allowed = self._rules.of(user)
        return self._pace(f"upload {user}", allowed.upload if allowed is not None else None)

    def download(self, user: str) -> Pace | None:
        """Return what paces a user's downloads, None where nothing does."""
        allowed = self._rules.of(user)
        return self._pace(f"download {user}", allowed.download if allowed is not None else None)

    def _pace(self, key: str, table: Timetable | None) -> Pace | None:
        if table is None:
            return None

        async def pace(size: int) -> None:
            rate, changes = table.at(self._now())
            if rate is None:
                return
            wait = self._counts.spend(key, size, rate, rate * _BANDWIDTH_BURST)
            if wait:
                # Debts of a slow hour are not paid at its rate in a faster one.
                await asyncio.sleep(min(wait, max(changes, 0.0)))

        return pace

    def _is_exempt(self, address: str) -> bool:
        if not self._rules.exempt:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in each for each in self._rules.exempt)

    def _refuse(self, what: str, text: str, wait: float) -> None:
        self._limited(what)
        seconds = b"%d" % max(1, -int(-wait // 1))
        raise Refusal(429, f"{text}; try again later", [(b"retry-after", seconds)])
