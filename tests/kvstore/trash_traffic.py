"""Traffic on a quota over a trash over a disk, written down step by step, for tests that kill it.

Each thread has names of its own, so that what it was answered says what must be there. A step is
written down before it begins and after it was answered; the lines reach the reader whatever
happens to the process. The clock runs fast, so that things expire within a test; restarts do not
set it back.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.kvstore import quota_place
from tests.kvstore.test_layer_trash import Plain

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ObjectExists, ObjectNotFound, QuotaExceeded
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.layers.trash import TrashLayer, on_behalf_of
from backupgw.kvstore.layers.trash_contents import Trash
from backupgw.kvstore.ledger import Ledger

SPEED = 1000
KEEP = 2000.0
"""Seconds of the fast clock; two of the test's."""
THREADS = 4
NAMES = 6
HEAD = 24
"""Bytes at the start of each value that tell it from all others."""


def clock() -> float:
    return 1_800_000_000.0 + (time.time() % 1_000_000) * SPEED


def disk(folder: Path) -> Backend:
    return PosixFS(str(folder / "store"), durability="fast")


def moving(folder: Path) -> Backend:
    """A place that cannot exchange two names."""
    place = Plain(disk(folder))
    place.moves = True
    return place


def copying(folder: Path) -> Backend:
    """A place that moves an item by copying it."""
    return Plain(disk(folder))


Maker = Callable[[Path], Backend]


def place_of(folder: Path, ledger: Ledger, make: Maker) -> QuotaLayer:
    trash = TrashLayer(make(folder), KEEP, bypass=quota_place.is_lock, clock=clock)
    return QuotaLayer(trash, ledger, quota_place.scopes, exempt=quota_place.is_lock, total="server")


def run(folder: Path, make: Maker, seed: int, output: int) -> None:
    """Be the process: work until somebody kills it."""
    with quota_place.ledger_of(folder) as ledger, place_of(folder, ledger, make) as place:
        clients = [Client(place, seed, number, output) for number in range(THREADS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    os._exit(1)  # a client failed, or it would have gone on for ever


class Client(threading.Thread):
    def __init__(self, place: QuotaLayer, seed: int, number: int, output: int) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._trash = Trash(place)
        self._random = random.Random(seed * 1000 + number)
        self._folder = f"user{number}/repo"
        self._seed = seed
        self._steps = 0
        self._output = output

    def run(self) -> None:
        try:
            with on_behalf_of(self._folder):
                while True:
                    self._step()
        except BaseException as error:
            self._say("FAILED", repr(error))
            raise

    def _say(self, *words: str) -> None:
        os.write(self._output, (" ".join((self._folder, *words)) + "\n").encode())

    def _pick(self) -> str:
        number = self._random.randrange(NAMES)
        return f"{self._folder}/data/{number % 2}/{number}"

    def _step(self) -> None:
        self._steps += 1
        action = self._random.choice(
            ("store", "store", "store", "create", "delete", "delete", "move", "restore", "expire")
        )
        name, other, value = self._pick(), "-", "-"
        if action in ("store", "create"):
            value = f"{self._seed:08}-{self._folder[4]}-{self._steps:013}"
        elif action == "move":
            other = self._pick()
        self._say("begin", action, name, other, value, str(clock()))
        try:
            self._do(action, name, other, value)
        except (ObjectNotFound, ObjectExists, QuotaExceeded):
            self._say("refused")
        else:
            self._say("done")

    def _do(self, action: str, name: str, other: str, value: str) -> None:
        if action in ("store", "create"):
            body = value.encode() + bytes(int(self._random.paretovariate(0.7) * 500) % 400_000)
            with self._place.open_writer(name, if_absent=action == "create") as writer:
                writer.write(body[:HEAD])
                writer.write(body[HEAD:])
        elif action == "delete":
            self._place.delete(name)
        elif action == "move":
            self._place.move(name, other)
        elif action == "restore":
            self._trash.restore_name(name, replace=self._random.random() < 0.3)
        else:
            self._trash.expire(trusted=True, most=20)
            lock = f"{self._folder}/locks/lock"
            self._place.store(lock, b"lock")
            self._place.delete(lock)


@dataclass
class Value:
    """What the journal says of one value."""

    acknowledged: bool = False
    left: float | None = None
    """The earliest time at which something began that could have removed it."""


@dataclass
class Journal:
    """All that the processes so far were told, and what follows from it."""

    values: dict[str, Value] = field(default_factory=dict)
    certain: dict[str, str] = field(default_factory=dict)
    """Names at which exactly this value must be now."""
    failures: list[str] = field(default_factory=list)
    steps: int = 0
    _at: dict[str, set[str]] = field(default_factory=dict)
    """Values by the names at which they may be."""

    def read(self, lines: list[bytes]) -> None:
        """Take in the lines of a process that has ended."""
        begun: dict[str, list[str]] = {}
        for line in lines:
            folder, what, *words = line.decode().split(" ")
            if what == "begin":
                begun[folder] = words
                self._begin(*words)
            elif what == "FAILED":
                self.failures.append(" ".join(words))
            elif what == "done":
                self._done(*begun.pop(folder))

    def _begin(self, action: str, name: str, other: str, value: str, now: str) -> None:
        self.steps += 1
        if action == "expire":
            return
        for changed in {name, other} - {"-"}:
            self.certain.pop(changed, None)
        if action in ("store", "create"):
            self._may_leave(name, float(now))
            self.values[value] = Value()
            self._at[name] = {value}
        elif action == "delete":
            self._may_leave(name, float(now))
        elif action == "move":
            self._may_leave(other, float(now))
            self._at.setdefault(other, set()).update(self._at.get(name, ()))
        elif action == "restore":
            self._may_leave(name, float(now))

    def _may_leave(self, name: str, now: float) -> None:
        for value in self._at.pop(name, ()):
            if self.values[value].left is None:
                self.values[value].left = now

    def _done(self, action: str, name: str, other: str, value: str, now: str) -> None:
        if action in ("store", "create"):
            self.values[value].acknowledged = True
            self.certain[name] = value

    def lost(self, present: set[str], now: float) -> list[str]:
        """Return the acknowledged values that are nowhere, but should be."""
        return [
            value
            for value, known in self.values.items()
            if known.acknowledged
            and value not in present
            and (known.left is None or known.left + KEEP > now)
        ]
