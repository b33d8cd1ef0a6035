"""Who may change a name or count a folder, among all processes of all gateways.

A claim is a row that says: this session has this name. Not an advisory lock of PostgreSQL: that
vanishes with its connection, while the process goes on changing the name, and it would take a
connection for every change under way. A row outlasts a lost connection and a restart of
PostgreSQL; it ends when it is given back, or when its session is buried.

What happens when a gateway is cut off in the middle:

- Before its intent: the intent is refused unless the very claim is still there (`NameLost`), so it
  is lost only before anything happened, a removal too. Claims are committed without waiting for
  PostgreSQL's disk; one that a crash of PostgreSQL took away is such a case, and once an intent is
  on disk, so is the claim before it.
- After its intent: it keeps the name until its lease has run out by PostgreSQL's clock, which it
  renews with the intent and every few seconds. A restart of PostgreSQL begins all leases anew.
- Longer than its lease: whoever needs the name buries the session and settles its intent by what
  is there. No file system lets us keep the first from finishing its change after all; but then it
  finds its session buried and its intent ended, or is silent, and in both cases the name is looked
  at again (`Doubt`), so that the accounts end up right.

Waiting is by LISTEN: who lets go of a claim that somebody waits for notifies everybody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from backupgw.kvstore.ledger import LedgerError, NameBusy
from backupgw.kvstore.ledger.turns import Step, Turns

from ..database import Database
from .books import DEADLINE
from .link import CHANNEL, CLAIMING, CLOCK, Link, Row, key_of

NAME, FOLDER, COUNT = "name", "folder", "count"

_BRIEF = 0.05
"""Seconds added to the end of somebody's lease before looking again."""

_RELEASE = """
    WITH gone AS (DELETE FROM ledger_claims WHERE holder = ANY(%s) RETURNING waited)
    SELECT pg_notify(%s, '') FROM gone WHERE waited LIMIT 1
"""
_ALIVE = "SELECT id FROM ledger_sessions WHERE id = ANY(%s) AND NOT dead"

# All of a holder's claims or none. What blocks whom is returned, with the seconds that the blocking
# session has left. Only one of these runs at a time (CLAIMING), so what it saw stays true.
_CLAIM = f"""
    WITH wanted AS (
        SELECT * FROM unnest(%(holders)s::bigint[], %(sessions)s::bigint[], %(keys)s::bytea[],
            %(kinds)s::text[], %(places)s::text[], %(names)s::text[], %(waiting)s::boolean[])
            AS each(holder, session, key, kind, place, name, waiting)
    ), blocks AS (
        SELECT wanted.holder, wanted.waiting, claim.key, claim.session
        FROM wanted JOIN ledger_claims claim ON claim.key = wanted.key
        WHERE claim.holder <> wanted.holder
        UNION ALL
        SELECT wanted.holder, wanted.waiting, claim.key, claim.session
        FROM wanted JOIN ledger_claims claim ON claim.place = wanted.place
        WHERE wanted.kind = '{NAME}' AND claim.kind = '{FOLDER}' AND claim.holder <> wanted.holder
            AND (claim.name = '' OR starts_with(wanted.name, claim.name || '/'))
    ), taken AS (
        INSERT INTO ledger_claims (key, holder, session, kind, place, name, waited)
        SELECT wanted.key, wanted.holder, wanted.session, kind, place, name, false
        FROM wanted JOIN ledger_sessions ON id = wanted.session AND NOT dead
        WHERE NOT EXISTS (SELECT 1 FROM blocks WHERE blocks.holder = wanted.holder)
        ON CONFLICT (key) DO NOTHING
    ), marked AS (
        UPDATE ledger_claims SET waited = true
        WHERE NOT waited AND key IN (SELECT key FROM blocks WHERE waiting)
    )
    SELECT blocks.holder, min(coalesce({DEADLINE}, 0)) - {CLOCK}
    FROM blocks LEFT JOIN ledger_sessions ON id = blocks.session AND NOT dead
    GROUP BY blocks.holder
"""  # noqa: S608
_BENEATH = f"""
    WITH under AS (
        SELECT key, session FROM ledger_claims WHERE kind = '{NAME}' AND place = %(place)s
            AND (%(folder)s = '' OR starts_with(name, %(folder)s || '/'))
    ), marked AS (
        UPDATE ledger_claims SET waited = true
        WHERE NOT waited AND key IN (SELECT key FROM under)
    )
    SELECT min(coalesce({DEADLINE}, 0)) - {CLOCK}
    FROM under LEFT JOIN ledger_sessions ON id = under.session AND NOT dead
    HAVING count(*) > 0
"""  # noqa: S608


@dataclass(slots=True)
class Wanted:
    """A request for names or a folder of a place, all or none; what came of it.

    Attributes:
        holder: unique for ever; the claims' owner.
        waiting: whoever has them is to tell when they are free.
        blocked: seconds that another session may have some of them; None when nobody has.
        cut_off: the session that asked was buried.
    """

    holder: int
    session: int
    kind: str
    place: str
    names: tuple[str, ...]
    waiting: bool = True
    blocked: float | None = None
    cut_off: bool = False
    keys: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = [key_of(self.kind, self.place, name) for name in self.names]


@dataclass(slots=True)
class Batch:
    """What one transaction is to do with claims."""

    wanted: list[Wanted] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    listings: list[Wanted] = field(default_factory=list)

    def want(self, wanted: Wanted) -> Wanted:
        """Ask for claims."""
        self.wanted.append(wanted)
        return wanted

    def list(self, place: str, folder: str) -> Wanted:
        """Ask who changes names beneath a folder."""
        wanted = Wanted(0, 0, FOLDER, place, (folder,))
        self.listings.append(wanted)
        return wanted


class _Mine(threading.local):
    """The holders of the claims that a thread has.

    A thread that was cut off finds out only when it goes on. Until then another one of the same
    process may have its names already, as the new session, and neither may take the other's claim
    for its own.
    """

    def __init__(self) -> None:
        self.holders: dict[bytes, int] = {}


class Claims:
    """The claims of one process; the locks of its ledger. All methods raise LedgerError.

    Args:
        session: returns this process's session and a fresh number.
        bury: buries the sessions whose leases have run out, and begins anew if this one was buried.
    """

    def __init__(
        self,
        database: Database,
        session: Callable[[], tuple[int, int]],
        bury: Callable[[], object],
    ) -> None:
        # A claim without its intent is worth nothing: it need not reach the disk before that.
        self.link = Link(database, ["SET synchronous_commit = off"])
        self.turns = Turns(self._transact, lambda: None)
        self._session = session
        self._bury = bury
        self._mine = _Mine()
        self._told = threading.Condition()
        self._tellings = 0
        self._open = True

    # -- the process

    def close(self) -> None:
        """Give back what is pending and let go. Idempotent."""
        self.turns.end()
        with self.turns.turn:
            self._open = False
            self.link.drop()
        self.tell()

    def leave_to_parent(self) -> None:
        """In a child after a fork: begin anew, with nothing."""
        self.link.leave_to_parent()
        self.turns = Turns(self._transact, lambda: None)
        self._mine = _Mine()
        self._told = threading.Condition()

    def tell(self) -> None:
        """Let all who wait look again."""
        with self._told:
            self._tellings += 1
            self._told.notify_all()

    def catch_up(self) -> None:
        """Give back what could not be given back while the database was away."""
        if self.turns.remembers:
            self.turns.run(Step(lambda _: None))

    def holder(self, kind: str, place: str, name: str) -> tuple[bytes, int] | None:
        """Return the key and the holder of a claim that this thread has."""
        key = key_of(kind, place, name)
        holder = self._mine.holders.get(key)
        return None if holder is None else (key, holder)

    def hand_over(self, place: str, name: str) -> tuple[bytes, int] | None:
        """Return the claim of a name that somebody else is to end from now on."""
        claim = self.holder(NAME, place, name)
        if claim is not None:
            del self._mine.holders[claim[0]]
        return claim

    # -- names

    @contextmanager
    def changing(
        self, place: str, names: Iterable[str], patience: float | None = None
    ) -> Iterator[None]:
        """Hold names exclusively, waiting for them, for about `patience` seconds at most."""
        with self._claimed(NAME, place, sorted(set(names)), patience):
            yield

    @contextmanager
    def trying(self, place: str, name: str) -> Iterator[bool]:
        """Hold a name if nobody else does; yields whether that is so."""
        wanted = self._ask(NAME, place, [name], waiting=False)
        if wanted.blocked is not None or wanted.cut_off:
            yield False
            return
        with self._held(wanted):
            yield True

    # -- counts

    @contextmanager
    def counting(self, place: str) -> Iterator[None]:
        """Be the only one who counts a place."""
        with self._claimed(COUNT, place, [""]):
            yield

    @contextmanager
    def listing(self, place: str, folder: str) -> Iterator[None]:
        """Wait until no change beneath a folder is under way, and keep new ones waiting."""
        with self._claimed(FOLDER, place, [folder]):
            while True:
                told = self._tellings
                beneath = self.turns.run(Step(lambda batch: batch.list(place, folder)))
                if beneath.blocked is None:
                    break
                self._wait(told, beneath.blocked)
            yield

    # -- claims

    @contextmanager
    def _claimed(
        self, kind: str, place: str, names: Sequence[str], patience: float | None = None
    ) -> Iterator[None]:
        end = None if patience is None else time.monotonic() + patience
        while True:
            told = self._tellings
            wanted = self._ask(kind, place, names)
            if wanted.cut_off:
                self._bury()
            elif wanted.blocked is not None:
                if end is None:
                    self._wait(told, wanted.blocked)
                elif (left := end - time.monotonic()) > 0:
                    self._wait(told, min(wanted.blocked, left))
                else:
                    raise NameBusy(f"the name is held for more than {patience:g} s", retryable=True)
            else:
                break
        with self._held(wanted):
            yield

    def _wait(self, told: int, left: float) -> None:
        """Wait until somebody let go, at most until a lease with so many seconds left is over."""
        if left <= 0:
            self._bury()
        with self._told:
            self._told.wait_for(lambda: self._tellings != told, max(0.0, left) + _BRIEF)

    def _ask(self, kind: str, place: str, names: Sequence[str], *, waiting: bool = True) -> Wanted:
        session, holder = self._session()
        wanted = Wanted(holder, session, kind, place, tuple(names), waiting)
        try:
            return self.turns.run(Step[Wanted](lambda batch: batch.want(wanted)))
        except BaseException:
            # It may have been granted all the same.
            self._release(holder)
            raise

    @contextmanager
    def _held(self, wanted: Wanted) -> Iterator[None]:
        keys = wanted.keys
        holders = self._mine.holders
        for key in keys:
            holders[key] = wanted.holder
        try:
            yield
        finally:
            # What was handed over is somebody else's to end.
            mine = [holders.pop(key, None) for key in keys]
            if wanted.holder in mine:
                # All changes beneath a folder wait for it.
                self._release(wanted.holder, linger=wanted.kind != FOLDER)

    def _release(self, holder: int, *, linger: bool = True) -> None:
        step = Step[object](lambda batch: batch.released.append(holder), keep=True)
        self.turns.post(step, linger=linger)

    # -- transactions

    def _transact(self, steps: Sequence[Step[Any]]) -> None:
        if not self._open:
            raise LedgerError("the ledger is not open")
        if not steps:
            return
        with self.link.translated():
            # Doing it twice is as good as once.
            self.link.attempts(lambda: self._attempt(steps))

    def _attempt(self, steps: Sequence[Step[Any]]) -> None:
        batch = Batch()
        for step in steps:
            step.result = step.work(batch)
        with self.link.transaction() as db, db.pipeline():
            db.execute("BEGIN")
            db.execute("SELECT pg_advisory_xact_lock(%s)", (CLAIMING,))
            if batch.released:
                db.execute(_RELEASE, (batch.released, CHANNEL))
            sessions = list({wanted.session for wanted in batch.wanted})
            alive = db.execute(_ALIVE, (sessions,)) if sessions else None
            claimed = [db.execute(_CLAIM, _arrays(part)) for part in _parts(batch.wanted)]
            listed = [
                db.execute(_BENEATH, {"place": each.place, "folder": each.names[0]})
                for each in batch.listings
            ]
            db.execute("COMMIT")
        if alive is not None:
            blocked = [row for cursor in claimed for row in cursor.fetchall()]
            _answer(batch.wanted, alive.fetchall(), blocked)
        for each, cursor in zip(batch.listings, listed, strict=True):
            row = cursor.fetchone()
            each.blocked = None if row is None else float(row[0])


def _parts(requests: Sequence[Wanted]) -> list[list[Wanted]]:
    """Return the requests so that no two of a part want the same thing; mostly one part."""
    parts: list[tuple[list[Wanted], set[bytes]]] = []
    for wanted in requests:
        keys = wanted.keys
        for part, asked in parts:
            if asked.isdisjoint(keys):
                part.append(wanted)
                asked.update(keys)
                break
        else:
            parts.append(([wanted], set(keys)))
    return [part for part, _ in parts]


def _arrays(requests: Sequence[Wanted]) -> dict[str, list[object]]:
    """Return the arrays of _CLAIM."""
    columns = ("holders", "sessions", "keys", "kinds", "places", "names", "waiting")
    arrays: dict[str, list[object]] = {column: [] for column in columns}
    for wanted in requests:
        for key, name in zip(wanted.keys, wanted.names, strict=True):
            row = (wanted.holder, wanted.session, key, wanted.kind, wanted.place, name)
            for column, value in zip(arrays.values(), (*row, wanted.waiting), strict=True):
                column.append(value)
    return arrays


def _answer(requests: Sequence[Wanted], alive: Sequence[Row], blocked: Sequence[Row]) -> None:
    sessions = {session for (session,) in alive}
    left = {holder: float(seconds) for holder, seconds in blocked}
    for wanted in requests:
        wanted.cut_off = wanted.session not in sessions
        wanted.blocked = left.get(wanted.holder)
