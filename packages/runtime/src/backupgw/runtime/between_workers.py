"""What the workers of a gateway know of each other: tables, tallies, locks, in a folder of theirs.

The supervisor makes the folder and names it in SHARED_VARIABLE; a process without one is alone, and
everything here then lies in its own memory. What several gateways must agree on is no matter for
this: that has the ledger and the database.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import threading
from collections.abc import Iterator

SHARED_VARIABLE = "BACKUPGW_SHARED_FOLDER"
"""Environment variable by which the supervisor tells its workers of a folder that is theirs."""

_PROBES = 16


class SharedLock:
    """A lock that one thread of all workers holds at a time; a dead worker holds none.

    Args:
        name: workers with the same name share it.
    """

    def __init__(self, name: str) -> None:
        self._own = threading.Lock()
        folder = os.environ.get(SHARED_VARIABLE)
        self._file = -1
        if folder:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(os.path.join(folder, f"lock-{name}"), flags, 0o600)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock, and hold it."""
        with self._own:
            if self._file < 0:
                yield
                return
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class SharedTable:
    """A few numbers for each key, the same for all workers. Every use is within `locked`.

    Memory is bounded: where there is no room for a key, the one near it whose first number is
    smallest is forgotten. A key whose first number is 0 is none.

    Args:
        name: workers with the same name share it.
        numbers: of each key.
        slots: how many keys there is room for.
    """

    def __init__(self, name: str, *, numbers: int, slots: int) -> None:
        self._slot = struct.Struct(f"=Q{numbers}d")
        self._slots = slots
        size = slots * self._slot.size
        self._lock = SharedLock(name)
        folder = os.environ.get(SHARED_VARIABLE)
        if folder:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            file = os.open(os.path.join(folder, f"table-{name}"), flags, 0o600)
            try:
                os.ftruncate(file, size)
                self._memory = mmap.mmap(file, size)
            finally:
                os.close(file)
        else:
            self._memory = mmap.mmap(-1, size)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        self._lock.close()

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Wait for one's turn, and have it."""
        return self._lock.held()

    def find(self, key: str) -> tuple[int, tuple[float, ...] | None]:
        """Return the slot that a key has or may have, and its numbers where it has any."""
        wanted = _number(key)
        least, smallest = 0, 0.0
        for probe in range(min(_PROBES, self._slots)):
            at = (wanted + probe) % self._slots * self._slot.size
            found, *numbers = self._slot.unpack_from(self._memory, at)
            if found == wanted:
                return at, tuple(numbers) if numbers[0] else None
            if probe == 0 or numbers[0] < smallest:
                least, smallest = at, numbers[0]
        return least, None

    def put(self, at: int, key: str, *numbers: float) -> None:
        """Keep the numbers of a key in the slot that `find` has found."""
        self._slot.pack_into(self._memory, at, _number(key), *numbers)


class Tally:
    """How many of something there are by key, in all workers together. For one thread of each.

    What a worker had ends with it: each counts in a file of its own, which nobody else writes and
    the supervisor removes.

    Args:
        name: workers with the same name add up.
    """

    SLOTS = 4096
    _SLOT = struct.Struct("=QQ")

    def __init__(self, name: str) -> None:
        self._own: dict[str, int] = {}
        self._folder = os.environ.get(SHARED_VARIABLE)
        self._prefix = f"tally-{name}."
        self._name = f"{self._prefix}{os.getpid()}"
        self._others: dict[str, mmap.mmap] = {}
        self._memory: mmap.mmap | None = None
        if self._folder:
            self._memory = _mapped(
                os.path.join(self._folder, self._name), self.SLOTS * self._SLOT.size
            )

    def close(self) -> None:
        """Have nothing more."""
        if self._memory is not None and self._folder:
            self._memory.close()
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, self._name))
        for memory in self._others.values():
            memory.close()
        self._memory = None
        self._others = {}

    def add(self, key: str, by: int) -> int:
        """Have so many more (or, negative, fewer); return how many this worker has now."""
        now = self._own.get(key, 0) + by
        if now > 0:
            self._own[key] = now
        else:
            self._own.pop(key, None)
        if self._memory is not None:
            self._note(self._memory, key, max(now, 0))
        return now

    def _note(self, memory: mmap.mmap, key: str, count: int) -> None:
        wanted, free = _number(key), -1
        for at in self._places(wanted):
            number, held = self._SLOT.unpack_from(memory, at)
            if number == wanted:
                free = at
                break
            if not held and free < 0:
                free = at
        if free >= 0:  # else thousands have something: this one is counted here alone
            self._SLOT.pack_into(memory, free, wanted, count)

    def _places(self, wanted: int) -> list[int]:
        return [(wanted + probe) % self.SLOTS * self._SLOT.size for probe in range(_PROBES)]

    def total(self, key: str) -> int:
        """Return how many all workers have."""
        total = self._own.get(key, 0)
        if not self._folder:
            return total
        wanted = _number(key)
        places = self._places(wanted)
        for memory in self._look():
            found = (self._SLOT.unpack_from(memory, at) for at in places)
            total += next((count for number, count in found if number == wanted), 0)
        return total

    def _look(self) -> list[mmap.mmap]:
        """Return the files of the other workers that live."""
        assert self._folder
        there = {
            name
            for name in os.listdir(self._folder)
            if name.startswith(self._prefix) and name != self._name
        }
        for gone in self._others.keys() - there:
            self._others.pop(gone).close()
        for new in there - self._others.keys():
            with contextlib.suppress(OSError):
                self._others[new] = _mapped(
                    os.path.join(self._folder, new), self.SLOTS * self._SLOT.size
                )
        return list(self._others.values())


def worker_ended(folder: str, pid: int) -> None:
    """Forget what a worker had that has ended (by the supervisor)."""
    for name in os.listdir(folder):
        if name.startswith("tally-") and name.endswith(f".{pid}"):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _mapped(path: str, size: int) -> mmap.mmap:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(file, size)
        return mmap.mmap(file, size)
    finally:
        os.close(file)


def _number(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") or 1
