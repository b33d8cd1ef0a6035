"""The short way of new items through a ledger in SQLite: one step each, and no books.

It is a part of each upload, in a process that does much else: what costs is less what it computes
than what it touches, which the processor's caches have forgotten since the upload before. So what
happens for each item stands in one function that asks few objects, and what is rare, or can be done
for many items at once, stands elsewhere: in a tenure the ends of items and the names they had wait
until there are some (SOME_SETTLED), or somebody wants to know.

Nor does anybody look whether a name is new where the new item's file has a number: the name is held
and the record says which file is to have it, so whoever finds the intent open after a crash can
tell the item that came from one that was there before. Where one was, the new one does not get the
name, and its intent is released.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Protocol
from zlib import crc32

from .held import HeldBooks
from .locks import COUNTING, NAMES, WANTED, ByteLocks
from .records import NewItem
from .sqlite_file import translate
from .sqlite_log import FRAME, SIZE, Log, frame
from .sqlite_memory import Memory
from .sqlite_state import SQLiteState
from .sqlite_uploads import MARK, MOST_SETTLED, Route, head, record
from .tenure import LONGEST, Tenure
from .turns import Step, Turns

SOME_SETTLED = 16
"""Ends of items that are worth a record's while, where nobody waits for them."""

_tuple = tuple.__new__


class Numbered(Protocol):
    """Has a session on record.

    Attributes:
        session: its number, 0 before it is on record.
        numbers: what it counts its reservations and intents by.
    """

    session: int
    numbers: Iterator[int]


class Lane:
    """What new items of one kind have in common as long as there is a tenure and no transaction.

    Attributes:
        checksum: of the place; names' checksums go on from it.
        mine: what `Tenure.held` has for a name of the place.
        open: whether there are open intents, whose names go the long way.
        first: numbers of the session begin above it.
        deadline: of what comes, in seconds since the epoch.
    """

    __slots__ = (
        "checksum",
        "deadline",
        "first",
        "log",
        "memory",
        "new",
        "of_place",
        "open",
        "place",
        "route",
        "scopes",
        "tag",
        "tail",
    )

    def __init__(
        self,
        memory: Memory,
        route: Route,
        log: Log,
        place: tuple[int, int],
        first: int,
        until: float,
    ) -> None:
        self.memory = memory
        self.new = memory.new
        self.tag = memory.tag
        self.open = bool(memory.named or memory.others)
        self.route = route
        self.place = route.place
        self.scopes = route.scopes
        self.tail = route.tail
        self.log = log.map
        self.checksum, self.of_place = place
        self.first = first
        self.deadline = int(until) + 1


class ShortWay:
    """New items of one session.

    Args:
        path: of the SQLite file.
        owner: whose session it is.
        clock: seconds since the epoch.
    """

    __slots__ = (
        "_clock",
        "_draining",
        "_drains",
        "_flags",
        "_held",
        "_lane",
        "_locks",
        "_owner",
        "_path",
        "_settled",
        "_state",
        "_tenure",
        "_turn",
        "_turns",
    )

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
        self._lane: Lane | None = None
        # Of the tenure and the turns, to be asked without asking for them.
        self._flags = tenure.flags
        self._held = tenure.held
        self._settled = tenure.ended
        self._turn = turns.turn
        self._draining: Step[None] | None = None
        self._drains = threading.Lock()
        """Held while there is such a step, so that there is one."""

    def leave_lane(self) -> None:
        """With the turn: what follows changes more than new items of one kind do."""
        self._lane = None

    def begin_new(
        self,
        place: str,
        name: str,
        scopes: tuple[str, ...],
        size: int,
        missing: Callable[[str], bool],
        lease: float,
        at_once: bool,
        file: int,
    ) -> NewItem | None:
        """As `Ledger.begin_new`; `lease` is in seconds."""
        lane = self._lane
        if not at_once or lane is None or lane.scopes != scopes or lane.place != place:
            return self._begin(place, name, scopes, size, missing, lease, file)
        text, tenure, turns = name.encode(), self._tenure, self._turns
        byte, mine = NAMES + crc32(text, lane.checksum), (lane.of_place,)
        flags, turn = self._flags, self._turn
        turn.acquire()
        try:
            route = lane.route
            if (
                self._lane is lane
                and tenure.taken
                and not flags[WANTED]
                and not flags[COUNTING]
                and size <= route.room_bytes
                and route.room_objects >= 1
                and not turns.queue
                and not (lane.open and lane.memory.is_open(place, name))
                and self._held.setdefault(byte, mine) is mine
            ):
                number = 0
                try:
                    if not file and not missing(name):
                        return None
                    coming = lane.first | next(self._owner.numbers)
                    memory = lane.memory
                    if len(self._settled) < SOME_SETTLED:
                        start = head(MARK, 0, len(text), coming, lane.deadline, size, file)
                        data = start + text + lane.tail
                        ended = 0
                    else:
                        numbers = [
                            each for each, _ in itertools.islice(self._settled, MOST_SETTLED)
                        ]
                        data = record(numbers, coming, lane.deadline, name, size, file, lane.tail)
                        ended = len(numbers)
                    begin = memory.end
                    end = begin + FRAME + len(data)
                    if end <= SIZE:
                        lane.log[begin:end] = frame(lane.tag, len(data), crc32(data)) + data
                        memory.end = end
                        route.room_bytes -= size
                        route.room_objects -= 1
                        route.added_bytes += size
                        route.added_objects += 1
                        lane.new[coming] = route, lane.deadline, name, size, file
                        if ended:
                            self._end(lane, ended)
                        tenure.came = True
                        number = coming
                except BaseException:
                    self._lane = None
                    self._state.forget()
                    raise
                finally:
                    if not number:
                        del self._held[byte]
                if number:
                    return _tuple(NewItem, (number, tenure, byte))
        finally:
            turn.release()
            if turns.queue:
                turns.catch_up()
        return self._begin(place, name, scopes, size, missing, lease, file)

    def _end(self, lane: Lane, count: int) -> None:
        """Let so many items have ended: it is on record."""
        memory, route, held, settled = lane.memory, lane.route, self._held, self._settled
        new, others = memory.new, memory.others
        for _ in range(count):
            number, name = settled.popleft()
            if name:
                del held[name]
            item = new.pop(number, None)
            if item is None or item[0] is not route or others:
                memory.end_new(number, item, route)
            else:
                route.ended_bytes += item[3]
                route.ended_objects += 1

    def _begin(
        self,
        place: str,
        name: str,
        scopes: tuple[str, ...],
        size: int,
        missing: Callable[[str], bool],
        lease: float,
        file: int,
    ) -> NewItem | None:
        """As `begin_new`, wherever it is not one of many in a lane."""
        tenure, turns = self._tenure, self._turns
        held = tenure.hold(place, name)
        if held is None:
            return None
        turn = turns.turn
        number = 0
        try:
            if not file and not missing(name):
                return None
            if turns.queue or turns.kept:
                return None  # others wait, whose steps are one transaction with ours
            turn.acquire()
            try:
                lingering = turns.lingering  # others add to it, but nobody takes from it now
                if lingering and (len(lingering) > 1 or lingering[0] is not self._draining):
                    return None
                self._lane = None
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
                    ended = [each for each, _ in itertools.islice(settled, MOST_SETTLED)]
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
                    new[coming] = route, deadline, name, size, file
                    if memory.listed:
                        memory.note(place, name)
                    text = record(ended, coming, deadline, name, size, file, route.tail)
                    end = log.append(memory.tag, memory.end, text)
                    if end is None:
                        state.begin_anew(memory)
                    else:
                        memory.end = end
                    for _ in ended:
                        self._let_go_of(settled.popleft()[1])
                    number = coming
                    if not alone:
                        tenure.begin()
                    if tenure.taken and log.mapped and end is not None and not memory.uncounted:
                        self._lane = Lane(
                            memory,
                            route,
                            log,
                            tenure.place(place),
                            owner.session << 32,
                            self._clock() + lease + LONGEST,
                        )
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
        number, holder, held = item
        tenure = self._tenure
        # One that is held by its folders keeps counts of them waiting.
        keeps = holder is tenure and tenure.taken and self._held[held][0] != 0
        if not settled:
            # Where the intent is still open, whoever wants the name next has to see that.
            self._turns.post(Step(_look))
            holder.let_go(held)
        elif keeps:
            self._settled.append((number, held))
            if not tenure.taken:
                with self._turn:  # it ended just now, and did not see that one
                    tenure.let_go_of_ended()
            if self._draining is None:
                self._settle_soon()
        else:
            self.settle_new(number)
            holder.let_go(held)

    def settle_new(self, number: int) -> None:
        """Let the intent of a new item end as intended, by the next intent or in a while."""
        self._settled.append((number, 0))
        if self._draining is None:
            self._settle_soon()

    def _settle_soon(self) -> None:
        if self._drains.acquire(blocking=False):
            self._draining = step = self._drain()
            self._turns.post(step, linger=True)

    def _let_go_of(self, held: int) -> None:
        if held:
            self._tenure.let_go(held)

    def _drain(self) -> Step[None]:
        """Return a step that records what has ended, unless an intent takes it along."""
        numbers: list[int] = []  # of this step: it may have to be repeated

        def drain(books: HeldBooks) -> None:
            if self._draining is step:
                self._draining = None
                self._drains.release()
            while self._settled:
                number, held = self._settled.popleft()
                numbers.append(number)
                self._let_go_of(held)
            for number in numbers:
                books.end_as_intended(number)

        step = Step(drain, keep=True)
        return step


def _look(_books: HeldBooks) -> None:
    """Do nothing: that there are books at all gives open intents their rows."""
