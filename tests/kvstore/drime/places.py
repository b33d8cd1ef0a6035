"""Places in a double of Drime, made the same way in any process, and what is done with them."""

from __future__ import annotations

from typing import Any

from tests.servers.drime_double import DrimeDouble

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.registry import open_place

MB = 1_000_000
PART = 5 << 20


def place(url: str, key: str, folder: str = "drime:backups/place", **options: Any) -> Backend:
    """Return a place in the double at `url`, not open."""
    return open_place(folder, api_key=key, api_url=url, **options)


def second(drime: DrimeDouble, **options: Any) -> Backend:
    """Another opening of the place, as another gateway would have it."""
    return place(drime.url, drime.key, **options)


def put(place: Backend, name: str, value: bytes, *, if_absent: bool = False) -> None:
    """Store an item."""
    with place.open_writer(name, size=len(value), if_absent=if_absent) as writer:
        writer.write(value)


def sizes(drime: DrimeDouble, name: str) -> list[int]:
    """The sizes of all that has a name in the place, in Drime."""
    return drime.account.tree().get(f"backups/place/{name}", [])
