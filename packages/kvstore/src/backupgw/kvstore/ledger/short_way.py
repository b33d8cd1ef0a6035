"""The short way of new items through a ledger in SQLite: one step each, and no books.

It is a part of each upload, in a process that does much else: what costs is less what it computes
than what it touches, which the processor's caches have forgotten since the upload before. So what
happens for each item stands in one function, and what is rare stands elsewhere.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from .held import HeldBooks
from .locks import WANTED, ByteLocks
from .records import NewItem
from .sqlite_file import translate
from .sqlite_state import SQLiteState
from .sqlite_uploads import MOST_SETTLED, record
from .tenure import Tenure
from .turns import Step, Turns


class Numbered(Protocol):
    """Has a session on record.

    Attributes:
        session: its number, 0 before it is on record.
        numbers: what it counts its reservations and intents by.
    """

    session: int
    numbers: Iterator[int]


class ShortWay:
    """New items of one session.

    Args:
        path: of the SQLite file.
        owner: whose session it is.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        path: str,
        owner: Numbered,
        locks: ByteLocks,
        tenure: Tenure,
        turns: Turns,
        state: SQLiteState,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._owner = owner
        self._locks = locks
        self._tenure = tenure
        self._turns = turns
        self._state = state
        self._clock = clock
        self._settled: deque[int] = deque()
        self._draining: Step[None] | None = None
        self._drains = threading.Lock()
        """Held while there is such a step, so that there is one."""

    def begin_new(
        self,
        place: str,
        name: str,
        scopes: tuple[str, ...],
        size: int,
        missing: Callable[[str], bool],
        lease: float,
    ) -> NewItem | None:
        """As `Ledger.begin_new`; `lease` is in seconds."""
        tenure, turns = self._tenure, self._turns
        held = tenure.hold(place, name)
        if held is None:
            return None
        turn = turns.turn
        number = 0
        try:
            if not missing(name):
                return None
            if turns.queue or turns.kept:
                return None  # others wait, whose steps are one transaction with ours
            turn.acquire()
            try:
                lingering = turns.lingering  # others add to it, but nobody takes from it now
                if lingering and (len(lingering) > 1 or lingering[0] is not self._draining):
                    return None
                tenure.came = True
                alone = tenure.taken
                if tenure.flags[WANTED]:
                    alone = tenure.goes_on()
                if not alone:
                    self._locks.begin_writing()
                state = self._state
                try:
                    memory = state.memory if alone else state.caught_up()
                    log = state.log
                    if memory is None or log is None:
                        return None
                    route = memory.lane
                    counted = bool(memory.uncounted) and memory.is_counted(place, name)
                    if (
                        route is None
                        or route.scopes != scopes
                        or route.place != place
                        or route.counted is not counted
                    ):
                        route = memory.change_lane(place, scopes, counted=counted)
                        if route is None:
                            return None
                    if size > route.room_bytes or route.room_objects < 1:
                        return None
                    if (memory.named or memory.others) and memory.is_open(place, name):
                        return None
                    owner, settled, new = self._owner, self._settled, memory.new
                    if not owner.session:
                        return None
                    ended = tuple(itertools.islice(settled, MOST_SETTLED))
                    for each in ended:
                        item = new.pop(each, None)
                        if item is None or item[0] is not route or memory.others:
                            memory.end_new(each, item, route)
                        else:
                            route.ended_bytes += item[3]
                            route.ended_objects += 1
                    route.room_bytes -= size
                    route.room_objects -= 1
                    route.added_bytes += size
                    route.added_objects += 1
                    coming = owner.session << 32 | next(owner.numbers)
                    deadline = int(self._clock() + lease) + 1
                    new[coming] = route, deadline, name, size
                    text = record(ended, coming, deadline, name, size, route.tail)
                    end = log.append(memory.tag, memory.end, text)
                    if end is None:
                        state.begin_anew(memory)
                    else:
                        memory.end = end
                    for _ in ended:
                        settled.popleft()
                    number = coming
                    if not alone:
                        tenure.begin()
                except BaseException as error:
                    state.forget()
                    if isinstance(error, OSError | sqlite3.Error):
                        raise translate(error, self._path) from error
                    raise
                finally:
                    if not alone:
                        self._locks.end_writing()
            finally:
                turn.release()
                if turns.queue:
                    turns.catch_up()
        finally:
            if not number:
                tenure.let_go(held)
        return NewItem(number, tenure, held)

    def end_new(self, item: NewItem, *, settled: bool) -> None:
        """As `Ledger.end_new`."""
        number, tenure, held = item
        if settled:
            self._settled.append(number)
            if self._draining is None:
                self._settle_soon()
        else:
            # Where the intent is still open, whoever wants the name next has to see that.
            self._turns.post(Step(_look))
        tenure.let_go(held)

    def settle_new(self, number: int) -> None:
        """Let the intent of a new item end as intended, by the next intent or in a while."""
        self._settled.append(number)
        if self._draining is None:
            self._settle_soon()

    def _settle_soon(self) -> None:
        if self._drains.acquire(blocking=False):
            self._draining = step = self._drain()
            self._turns.post(step, linger=True)

    def _drain(self) -> Step[None]:
        """Return a step that records what has ended, unless an intent takes it along."""
        numbers: list[int] = []  # of this step: it may have to be repeated

        def drain(books: HeldBooks) -> None:
            if self._draining is step:
                self._draining = None
                self._drains.release()
            while self._settled:
                numbers.append(self._settled.popleft())
            for number in numbers:
                books.end_as_intended(number)

        step = Step(drain, keep=True)
        return step


def _look(_books: HeldBooks) -> None:
    """Do nothing: that there are books at all gives open intents their rows."""
