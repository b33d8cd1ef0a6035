"""The short way for what a ledger does all day: a new item that has room, and ends as intended.

Such an intent needs neither books nor questions: sums that all stay calm (`Account`) take it. Its
record in the log says what happened where other records say what came of it; who reads it comes to
the same sums, since all begin with the same. One record has an intent and the settles before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from .accounts import Account

MARK = b"+"
"""What these records begin with; all others are JSON from the start."""

_text = json.encoder.encode_basestring_ascii


class Route:
    """What items of a place that count towards the same scopes have in common.

    Args:
        accounts: of the scopes, in their order.
        tallies: what the place adds to them, [bytes, objects].
    """

    __slots__ = ("_pieces", "accounts", "place", "scopes_text", "tail", "tallies")

    def __init__(
        self,
        place: str,
        scopes: Sequence[str],
        accounts: Sequence[Account],
        tallies: Sequence[list[int]],
    ) -> None:
        self.place = place
        self.accounts = accounts
        self.tallies = tallies
        self.scopes_text = json.dumps(scopes)
        self.tail = f"{_text(place)},{self.scopes_text}]"
        starts = [f"[{json.dumps(scope)}," for scope in scopes]
        self._pieces = ["[" + starts[0], *(f",1],{start}" for start in starts[1:]), ",1]]"]

    def holds(self, size: int) -> str:
        """Return as text that each scope holds one item of `size` bytes."""
        return str(size).join(self._pieces)

    def use(self, size: int, objects: int) -> None:
        """Make used what was reserved."""
        for account in self.accounts:
            account.reserved_bytes -= size
            account.reserved_objects -= objects
            account.used_bytes += size
            account.used_objects += objects
        for tally in self.tallies:
            tally[0] += size
            tally[1] += objects


Intent = tuple[int, int, str, int]
"""The number, deadline, name and size of a new item that is about to come."""

New = tuple[Route, int, str, int]
"""The route, deadline, name and size of one that is on record."""


def record(settled: Sequence[int], intent: Intent, route: Route) -> bytes:
    """Return what the log gets for an intent, and for the settles before it, by their numbers."""
    number, deadline, name, size = intent
    ended = str(settled[0]) if len(settled) == 1 else ",".join(map(str, settled))
    return f"+[[{ended}],{number},{deadline},{_text(name)},{size},{route.tail}".encode()


def read(text: bytes) -> tuple[list[int], Intent, str, list[str]]:
    """Return what `record` was given: numbers settled, the intent, its place and scopes."""
    settled, number, deadline, name, size, place, scopes = json.loads(text[len(MARK) :])
    return settled, (number, deadline, name, size), place, scopes
