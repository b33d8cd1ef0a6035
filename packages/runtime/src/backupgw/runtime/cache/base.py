"""What every cache is, and how keys and values are written: JSON, never pickles.

A pickle that somebody else put into a shared Redis would run as our code; JSON cannot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None
"""A value. What comes back is what JSON makes of it: a tuple comes back as a list."""

LONGEST_TTL = 86_400.0
"""Seconds that a value may be kept: an invalidation that was lost heals within that time."""
LARGEST_VALUE = 1 << 20
"""Bytes of a value's JSON; a larger one is not kept."""
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


class Cache(Protocol):
    """Values by key, for a time. For any thread, and processes where it is shared.

    Only a programmer's mistake raises: TypeError or ValueError for a value that JSON cannot hold
    or a time to live that is not above 0 and at most LONGEST_TTL.

    Attributes:
        shared: other processes see the same values.
        blocking: a call may wait for a network, so the event loop calls it through `Threads`.
    """

    shared: bool
    blocking: bool

    def get(self, key: str, default: Json = None) -> Json:
        """Return a key's value, a copy of its own; `default` where there is none."""

    def get_many(self, keys: Sequence[str]) -> list[Json]:
        """Return several keys' values at the cost of one; None where there is none."""

    def set(self, key: str, value: Json, ttl: float) -> None:
        """Keep a value for at most `ttl` seconds; it may vanish at any moment."""

    def delete(self, key: str) -> None:
        """Forget a key."""

    def clear(self) -> None:
        """Forget every key of this cache, or of this namespace."""

    def namespace(self, name: str) -> Cache:
        """Return the cache of a name of its own (lower-case letters, digits, - and _)."""

    def close(self) -> None:
        """Free connections; namespaces share them, and are closed with it."""


def check_namespace(name: str) -> str:
    """Return `name`. Raises ValueError where it is none: a key must not reach out of it."""
    if not _NAMESPACE.match(name):
        raise ValueError(f"{name!r} is not a cache's namespace")
    return name


def check_ttl(ttl: float) -> float:
    """Return `ttl`. Raises ValueError."""
    if not 0 < ttl <= LONGEST_TTL:
        raise ValueError(f"a time to live is above 0 and at most {LONGEST_TTL:.0f} s, not {ttl}")
    return ttl


def encode(value: Json) -> bytes:
    """Write a value. Raises TypeError or ValueError (a NaN, a circle)."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def decode(written: bytes) -> Json:
    """Read a value. Raises ValueError: it was not written by `encode`."""
    value: Json = json.loads(written)
    return value
