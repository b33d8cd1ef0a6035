"""Names of new items that a process holds, and its tenure: a while in which it alone has a ledger.

Locking a name, the ledger for a record and unlocking both are five questions to the kernel, and to
a process that does much else each costs more than all that the ledger computes for an upload.
Nearly always one process uses a ledger, or one at a time. So who is busy takes the locks of all
names and of the writer at once, for a while, and does without any single one.

Why it is right. All locks of new items lie on one descriptor (`_fd`), and locks of one descriptor
do not conflict with each other:

- In a tenure that descriptor has the lock of every name, and a shared one of every place; the
  writers' lock is held too. To all others, threads of this process that lock names by descriptors
  of their own among them, each name is held and a transaction under way, as if that were so. They
  wait in the kernel as they always do, and nothing here decides anything that others decide too.
- A tenure is taken only where nothing has to be waited for: nobody holds any name then, counts a
  place or writes.
- It ends by unlocking the gaps between the names in use, and afterwards the writers' lock: what is
  held for an item under way is never let go of in between, so nobody has to wait for it, and who
  gets the lock of a writer finds all records written.
- Between two threads of this process a name is held by whoever has put its byte into `held`,
  before it is locked and until after it is unlocked. Names whose checksums agree are one name.
- What has ended in a tenure may keep its name for a while (`ended`), since to all others every name
  is held. Whoever wants one in this process, too, either finds it held, and goes the long way, or
  ends the tenure first; and with the tenure these names are let go of.
- If the process is killed, the kernel takes all locks back at once.

Without a tenure names are locked one by one, and with them, shared, their place. A place stays
locked for a moment after its last name, since the next item mostly comes sooner. That keeps nobody
waiting but who counts: it is let go of with the end of an item after the flag of a count is up, or
at the next tick.

While a place is counted there is no tenure, and names are locked with the folders above them,
shared, instead of with their place: as by who waits for them (`ByteLocks`), but a folder that is
locked just now, or is about to be, is not waited for. So who counts it sees all of a new item
beneath it or nothing, as ever. Several names have their folders in common on the one descriptor,
and a folder is let go of with its last. That cannot keep a count waiting for ever: it closes a gate
first, in front of which nothing new is held.

Who has to wait for anything raises the one byte `wanted` beside the locks (`ByteLocks`). It is only
a request: whoever has the tenure ends it when a new item comes, or at the next tick, and takes none
for PAUSE seconds. If the request was lost, a tenure ends all the same after LONGEST seconds or when
nothing new came for a tick, with a pause in which those who wait get what they wait for.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from zlib import crc32

from .errors import LedgerError
from .locks import COUNTING, NAMES, PLACES, WANTED, ByteLocks

logger = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds without a tenure after one that others wanted to end."""

LONGEST = 1.0
"""Seconds that a tenure lasts at most."""

REST = 0.05
"""Seconds without one after a tenure that nobody wanted to end."""


class Tenure:
    """The names that new items of one session have, and whether it holds all there are.

    `hold` and `let_go` are called by any thread, all else by the one that has the turn. All raise
    LedgerError, but for `let_go` and `begin`.

    Args:
        locks: of the ledger.
        clock: seconds that pass evenly.
        wake: called when there is something to `tick` for soon.
    """

    def __init__(
        self, locks: ByteLocks, clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self.taken = False
        """Whether this process has all names, and the writers' lock."""
        self.came = False
        """Whether a new item came since the last tick."""
        self.ended: deque[tuple[int, int]] = deque()
        """New items that have ended as intended, and what to `let_go` of for each; 0 for nothing.
        Taken from with the turn only."""
        self.flags = locks.flags
        self._locks = locks
        self._clock = clock
        self._wake = wake
        self._fd = locks.open_descriptor()
        self._guard = threading.Lock()
        self._places_of: dict[str, tuple[int, int]] = {}  # checksum and byte of a place
        self.held: dict[int, tuple[int]] = {}
        """Bytes of names, each with its place's. A name is had by whose tuple is in here; tuples
        come in by `setdefault`, so that they do without `_guard` where there is a tenure."""
        self._places: dict[int, int] = {}  # how many of them has a place that is locked
        # Of names that are held by their folders instead, while something is counted.
        self._above: dict[int, Sequence[int]] = {}
        self._folders: dict[int, int] = {}  # how many of them are in one
        self._until = 0.0
        self._not_before = 0.0
        self._closed = False

    # -- names

    def hold(self, place: str, name: str) -> int | None:
        """Hold a name where that needs no waiting; returns what `let_go` takes, or None."""
        checksum, of_place = self.place(place)
        byte, mine = NAMES + crc32(name.encode(), checksum), (of_place,)
        with self._guard:
            if self._closed:
                return None
            if self.flags[COUNTING]:
                return None if byte in self.held else self._hold_by_folders(place, name, byte)
            if self.held.setdefault(byte, mine) is not mine:
                return None
            if not self.taken:
                locked = False
                try:
                    locked = self._lock(byte, of_place)
                finally:
                    if not locked:
                        del self.held[byte]
                if not locked:
                    return None
            return byte

    def _lock(self, byte: int, of_place: int) -> bool:
        locks = self._locks
        if of_place not in self._places:
            if not locks.share_place(self._fd, of_place):
                return False
            self._places[of_place] = 0
        if locks.flags[COUNTING] or not locks.take_name(self._fd, byte):
            self._leave(of_place)
            return False
        self._places[of_place] += 1
        return True

    def place(self, place: str) -> tuple[int, int]:
        """Return the checksum of a place, which its names' checksums go on from, and its byte."""
        return self._places_of.get(place) or self._place(place)

    def _place(self, place: str) -> tuple[int, int]:
        checksum = crc32(place.encode())
        found = self._places_of[place] = checksum, PLACES + checksum
        return found

    def _hold_by_folders(self, place: str, name: str, byte: int) -> int | None:
        """Hold a name while some place is counted."""
        locks, fd = self._locks, self._fd
        if self.taken:
            return None  # who counts waits for the end of the tenure
        above = locks.share_folders(fd, place, name, self._folders)
        if above is None:
            return None
        if not locks.take_name(fd, byte):
            self._leave_folders(above)
            return None
        for folder in above:
            self._folders[folder] = self._folders.get(folder, 0) + 1
        self._above[byte] = above
        self.held[byte] = (0,)
        return byte

    def _leave_folders(self, above: Sequence[int]) -> None:
        """Let go of those of these folders that no name is held by."""
        for folder in above:
            if folder not in self._folders:
                self._locks.drop(self._fd, folder)

    def let_go(self, held: int) -> None:
        """Give a name back."""
        with self._guard:
            of_place = self.held[held][0]
            try:
                if not self.taken:
                    self._locks.drop(self._fd, held)
                    if of_place:
                        self._places[of_place] -= 1
                        self._leave(of_place)
                if not of_place:
                    above = self._above.pop(held)
                    for folder in above:
                        self._folders[folder] -= 1
                        if not self._folders[folder]:
                            del self._folders[folder]
                    self._leave_folders(above)
            except LedgerError as error:
                logger.warning("a name stays held until the ledger is closed: %s", error)
            del self.held[held]
            if self._closed and not self.held:
                self._locks.close_descriptor(self._fd)

    def _leave(self, place: int) -> None:
        """Have a place let go of, if no name of it is held: soon, since the next item mostly comes
        sooner."""
        if not self._places[place]:
            if self._closed or self.flags[COUNTING]:
                del self._places[place]
                self._locks.drop(self._fd, place)
            else:
                self._wake()

    def _leave_idle(self) -> None:
        with self._guard:
            for place in [place for place, names in self._places.items() if not names]:
                del self._places[place]
                self._locks.drop(self._fd, place)

    # -- the tenure

    def goes_on(self) -> bool:
        """Whether there is a tenure for a new item; ends one that others wait for."""
        if self._locks.flags[WANTED]:
            if self.taken:
                self.end(PAUSE)
            else:
                self._not_before = self._clock() + PAUSE
            self._locks.answer()
        return self.taken

    def begin(self) -> None:
        """Begin a tenure if it is time, and nothing has to be waited for.

        Called by who writes, after it has read what others wrote.
        """
        now, locks = self._clock(), self._locks
        if now < self._not_before or locks.flags[COUNTING] or self._closed:
            return
        with self._guard:
            try:
                self.taken = locks.keep_writing() and locks.take_all(self._fd)
            except LedgerError as error:
                logger.warning("no tenure: %s", error)
            if not self.taken:
                self._not_before = now + REST
                self._shrink()
                return
        self._until = now + LONGEST
        self._wake()

    def end(self, pause: float = REST) -> None:
        """End the tenure if there is one; take none for `pause` seconds."""
        with self._guard:
            if not self.taken:
                return
            self.taken = False
            self._not_before = self._clock() + pause
            for _ in range(len(self.ended)):
                number, held = self.ended.popleft()
                if held:
                    del self.held[held]
                self.ended.append((number, 0))
            self._shrink()

    def let_go_of_ended(self) -> None:
        """Give back the names of all items that have ended."""
        for _ in range(len(self.ended)):
            number, held = self.ended.popleft()
            if held:
                self.let_go(held)
            self.ended.append((number, 0))

    def _shrink(self) -> None:
        """Leave nothing locked but the names in use, and their places; then let others write."""
        self._places = {}
        for (place,) in self.held.values():
            if place:
                self._places[place] = self._places.get(place, 0) + 1
        try:
            self._locks.drop_all_but(self._fd, [*self.held, *self._places, *self._folders])
        finally:
            self._locks.stop_writing()

    def tick(self) -> bool:
        """End a tenure that is wanted, unused or too long, and let go of places that are not used;
        returns whether to look again."""
        came, self.came = self.came, False
        if not self.taken:
            if not came or self.flags[COUNTING]:
                self._leave_idle()
            return came
        if self._locks.flags[WANTED]:
            self.end(PAUSE)
            self._locks.answer()
        elif not came or self._clock() > self._until:
            self.end()
        return self.taken

    def close(self) -> None:
        """End the tenure, and hold no more names; those in use are let go of as ever."""
        self.end()
        with self._guard:
            self._closed = True
            if not self.held:
                self._locks.close_descriptor(self._fd)
