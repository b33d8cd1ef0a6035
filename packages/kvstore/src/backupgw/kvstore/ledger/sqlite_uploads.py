"""The short way for what a ledger does all day: a new item that has room, and ends as intended.

Such an intent needs neither books nor questions: while all sums stay calm (`Account`), what is left
until one of them would not is one number for all items of the same scopes, and is counted down. The
sums themselves are brought up to date when somebody wants to see them (`Memory.settle_up`). Its
record in the log says what happened where other records say what came of it; who reads it comes to
the same sums, since all begin with the same. One record has an intent and the settles before it.

While a place is counted, what was there already when its folder was listed is part of what the
count has found; what comes to that folder later has to be added to it, and what comes to folders
that are still to be listed must not be. A record says in its tail which of both an item is
(`counted`). That stays true until it has ended: the folders that are still to be listed change in a
transaction of SQLite alone, before which all that is open gets a row and the log begins anew; and a
count of a folder ends what is open in it by itself, with its names held.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence

from .accounts import Account

MARK = b"#"
"""What these records begin with; most others are JSON from the start."""

FORMER_MARKS = b"*", b"+"
"""What they began with in files of version 5, without the number of a file, and of version 3, where
the rest was JSON."""

MOST_SETTLED = 64
"""Settles that one record has at most."""

_HEAD = struct.Struct("<cBIqqqq")
_FORMER_HEAD = struct.Struct("<cBIqqq")
head = _HEAD.pack
"""Return what the record of an intent begins with: MARK, how many settles follow, the length of the
name, number, deadline, size and the file's number."""
_SETTLED = [struct.Struct(f"<{count}q") for count in range(MOST_SETTLED + 1)]


class Route:
    """What items of a place that count towards the same scopes have in common.

    Args:
        accounts: of the scopes, in their order.
        tallies: what the place adds to them, [bytes, objects, counted bytes, counted objects].
        counted: a count in progress has been where the items are.

    Attributes:
        room_bytes, room_objects: what may be added until a sum is no longer calm; right while
            items of this route alone come.
        added_bytes, added_objects: what was intended, and the accounts do not say yet.
        ended_bytes, ended_objects: what has ended as intended, and they do not say yet.
    """

    __slots__ = (
        "_pieces",
        "accounts",
        "added_bytes",
        "added_objects",
        "counted",
        "ended_bytes",
        "ended_objects",
        "place",
        "room_bytes",
        "room_objects",
        "scopes",
        "scopes_text",
        "tail",
        "tallies",
    )

    def __init__(
        self,
        place: str,
        scopes: tuple[str, ...],
        accounts: Sequence[Account],
        tallies: Sequence[list[int]],
        *,
        counted: bool,
    ) -> None:
        self.place = place
        self.scopes = scopes
        self.accounts = accounts
        self.tallies = tallies
        self.counted = counted
        self.scopes_text = json.dumps(scopes)
        self.tail = tail_of(place, scopes, counted=counted)
        self.room_bytes = self.room_objects = -math.inf
        self.added_bytes = self.added_objects = self.ended_bytes = self.ended_objects = 0
        starts = [f"[{json.dumps(scope)}," for scope in scopes]
        self._pieces = ["[" + starts[0], *(f",1],{start}" for start in starts[1:]), ",1]]"]

    def holds(self, size: int) -> str:
        """Return as text that each scope holds one item of `size` bytes."""
        return str(size).join(self._pieces)

    def measure(self) -> bool:
        """Find out how much room there is, with accounts up to date; returns whether any."""
        self.room_bytes = self.room_objects = math.inf
        for account in self.accounts:
            if account.used_bytes < 0 or account.used_objects < 0:
                return False
            free = account.calm_bytes - account.used_bytes - account.reserved_bytes
            self.room_bytes = min(self.room_bytes, free)
            free = account.calm_objects - account.used_objects - account.reserved_objects
            self.room_objects = min(self.room_objects, free)
        return self.room_bytes >= 0 and self.room_objects > 0

    def settle_up(self) -> None:
        """Let the accounts and tallies say what they do not say yet."""
        more_bytes = self.added_bytes - self.ended_bytes
        more_objects = self.added_objects - self.ended_objects
        for account in self.accounts:
            account.reserved_bytes += more_bytes
            account.reserved_objects += more_objects
            account.used_bytes += self.ended_bytes
            account.used_objects += self.ended_objects
        for tally in self.tallies:
            tally[0] += self.ended_bytes
            tally[1] += self.ended_objects
            if self.counted:
                tally[2] += self.ended_bytes
                tally[3] += self.ended_objects
        self.added_bytes = self.added_objects = self.ended_bytes = self.ended_objects = 0


New = tuple[Route, int, str, int, int]
"""The route, deadline, name, size and file of one that is on record."""


def tail_of(place: str, scopes: Sequence[str], *, counted: bool = False) -> bytes:
    """Return what a record ends with, which is the same for all items of a route."""
    return json.dumps([place, scopes, 1] if counted else [place, scopes]).encode()


def route_of(tail: bytes) -> tuple[str, tuple[str, ...], bool]:
    """Return the place and the scopes that a tail says, and whether its items are counted."""
    place, scopes, *counted = json.loads(tail)
    return place, tuple(scopes), bool(counted)


def record(
    settled: Sequence[int], number: int, deadline: int, name: str, size: int, file: int, tail: bytes
) -> bytes:
    """Return what the log gets for an intent, and for the settles before it, by their numbers."""
    text = name.encode()
    count = len(settled)
    start = head(MARK, count, len(text), number, deadline, size, file)
    return start + _SETTLED[count].pack(*settled) + text + tail


def read(text: bytes) -> tuple[Sequence[int], int, int, str, int, int, bytes]:
    """Return what `record` was given."""
    if text.startswith(MARK):
        _, count, length, number, deadline, size, file = _HEAD.unpack_from(text)
        start = _HEAD.size
    elif text.startswith(FORMER_MARKS[0]):
        _, count, length, number, deadline, size = _FORMER_HEAD.unpack_from(text)
        start, file = _FORMER_HEAD.size, 0
    else:
        settled, number, deadline, name, size, place, scopes = json.loads(text[1:])
        return settled, number, deadline, name, size, 0, tail_of(place, scopes)
    ended = _SETTLED[count].unpack_from(text, start)
    start += 8 * count
    end = start + length
    return ended, number, deadline, text[start:end].decode(), size, file, text[end:]
