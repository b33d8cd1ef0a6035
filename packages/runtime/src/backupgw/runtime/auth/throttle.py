"""How often a password may be guessed: failures are counted by (address, user) and by address.

After a few free failures each further one makes the next attempt wait longer. Guessing at one
user name soon slows that pair down alone, so the other users behind the same address hardly
notice; guessing at many names slows the address, by little enough that it is never shut out for
long. Users who do not exist are counted like those who do. Memory is bounded. All workers of a
gateway count together, or more of them would mean more guesses.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..between_workers import SharedTable


class Throttled(Exception):
    """Too many failures: the attempt was not looked at. Answer 429 with Retry-After.

    Attributes:
        retry_after: seconds, above 0.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many failed logins; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Limit:
    """How failures turn into waiting.

    Attributes:
        free: failures before anybody waits.
        first: seconds to wait after one more; doubled by each further failure.
        longest: seconds at most.
        forget: seconds in which one failure is forgiven.
    """

    free: int
    first: float
    longest: float
    forget: float


PAIR = Limit(free=5, first=1.0, longest=60.0, forget=300.0)
ADDRESS = Limit(free=30, first=0.5, longest=10.0, forget=5.0)


class Throttle:
    """Counts for the workers of one service.

    Args:
        pair: the limit for one user name from one address.
        address: the limit for one address.
        name: of what is guessed at: workers with the same name count together.
        size: how many pairs, and how many addresses, are remembered.
        clock: seconds since the machine was started, the same in all processes.
    """

    def __init__(
        self,
        pair: Limit = PAIR,
        address: Limit = ADDRESS,
        *,
        name: str = "logins",
        size: int = 8192,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = pair, address
        # When the last failure was, and how many there are.
        self._pairs = SharedTable(f"{name}-pairs", numbers=2, slots=size)
        self._addresses = SharedTable(f"{name}-addresses", numbers=2, slots=size)
        self._clock = clock

    def close(self) -> None:
        """Let go of the memory."""
        self._pairs.close()
        self._addresses.close()

    def check(self, address: str, user: str) -> None:
        """Raises Throttled when the pair or the address has to wait."""
        now = self._clock()
        address = network(address)
        pair_limit, address_limit = self._limits
        wait = max(
            _wait(self._pairs, _pair(address, user), pair_limit, now),
            _wait(self._addresses, address, address_limit, now),
        )
        if wait > 0:
            raise Throttled(wait)

    def failed(self, address: str, user: str) -> None:
        """Count a wrong password."""
        now = self._clock()
        address = network(address)
        pair_limit, address_limit = self._limits
        _count(self._pairs, _pair(address, user), pair_limit, now)
        _count(self._addresses, address, address_limit, now)

    def succeeded(self, address: str, user: str) -> None:
        """Forget the pair's failures. The address's stay: its owner may have a login of his own."""
        key = _pair(network(address), user)
        with self._pairs.locked():
            at, failures = self._pairs.find(key)
            if failures is not None:
                self._pairs.put(at, key, 0.0, 0.0)


def _pair(address: str, user: str) -> str:
    return f"{address} {user}"


def _count(table: SharedTable, key: str, limit: Limit, now: float) -> None:
    with table.locked():
        at, failures = table.find(key)
        last, count = failures or (now, 0.0)
        table.put(at, key, now, max(0.0, count - (now - last) / limit.forget) + 1)


def _wait(table: SharedTable, key: str, limit: Limit, now: float) -> float:
    with table.locked():
        _, failures = table.find(key)
    if failures is None:
        return 0.0
    last, count = failures
    over = count - limit.free
    if over <= 0:
        return 0.0
    return last + min(limit.longest, limit.first * math.pow(2.0, min(over - 1, 60.0))) - now


def network(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 one.

    A single machine commonly has a whole /64. What is no IP address (a unix socket) is itself.
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
