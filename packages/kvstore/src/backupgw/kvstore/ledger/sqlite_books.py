"""The books of one SQLite transaction: what the steps of a ledger read and change."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence

from .accounts import Account
from .held import HeldBooks, HeldRow, load_holds
from .noted import Noted, given_up, in_folder
from .records import NOTHING, Amount, Correction, Effect
from .sqlite_rows import (
    READ_ACCOUNTS,
    WRITE_HELD,
    account_of,
    add_to_tallies,
    held_of,
    read_accounts,
    row_of,
    write_accounts,
)
from .told_late import Counts, Then

DEAD = 0
"""The session of intents whose process has died."""

logger = logging.getLogger(__name__)


class SQLiteBooks(HeldBooks):
    """The state behind one write transaction.

    Args:
        db: with the transaction begun.
        session: this process's.
        now: seconds since the epoch.
        is_dead: whether another session's process has ended.
        boot: what tells this start of the machine from others, "" where nothing does.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        *,
        session: int,
        now: float,
        is_dead: Callable[[int], bool],
        boot: str,
    ) -> None:
        super().__init__(session=session, now=now)
        self.db = db
        self._is_dead = is_dead
        self._boot = boot
        self._counting: bool | None = None
        self._listed: dict[str, str] | None = None

    # -- accounts

    def load(self, scopes: Sequence[str]) -> Iterable[Account]:
        return read_accounts(self.db, scopes)

    def all_accounts(self, after: str, most: int) -> list[Account]:
        self.write_back()
        rows = self.db.execute(
            f"{READ_ACCOUNTS} WHERE scope > ? ORDER BY scope LIMIT ?", (after, most)
        ).fetchall()
        return list(map(account_of, rows))

    def write_back(self) -> None:
        write_accounts(self.db, self.touched())
        tallies, self._tallies = self._tallies, {}
        add_to_tallies(
            self.db, [(*key, *more, *counted) for key, (more, counted) in tallies.items()]
        )

    # -- reservations and intents

    def holds_of(self, number: int) -> dict[str, Amount]:
        row = self.db.execute("SELECT holds FROM held WHERE number = ?", (number,)).fetchone()
        return {} if row is None else load_holds(row[0])

    def put(self, row: HeldRow, deadline: float) -> None:
        self.db.execute(
            WRITE_HELD,
            row_of(row, self.session, deadline),
        )
        if row.name is not None:
            self.note(row.place, row.name)

    def take(self, number: int) -> HeldRow | None:
        for row in self.db.execute(
            "DELETE FROM held WHERE number = ? RETURNING *", (number,)
        ).fetchall():
            return held_of(row)
        return None

    def drop(self, number: int) -> bool:
        return self.db.execute("DELETE FROM held WHERE number = ?", (number,)).rowcount > 0

    def renew(self, number: int, deadline: float) -> None:
        self.db.execute("UPDATE held SET deadline = ? WHERE number = ?", (deadline, number))

    def park(self, number: int, deadline: float) -> None:
        self.db.execute(
            "UPDATE held SET session = NULL, deadline = ? WHERE number = ?", (deadline, number)
        )

    def open_changes(self, place: str, name: str) -> list[int]:
        return [
            number
            for (number,) in self.db.execute(
                "SELECT number FROM held WHERE place = ? AND name = ?", (place, name)
            ).fetchall()
        ]

    def effect_of(self, number: int, place: str, name: str) -> Amount | None:
        row = self.db.execute(
            "SELECT after_bytes, after_objects FROM held WHERE number=? AND place=? AND name=?",
            (number, place, name),
        ).fetchone()
        return None if row is None else Amount(*row)

    # -- after a crash

    def reclaim(self) -> None:
        """Give back reservations that expired or whose process died; mark the dead's intents."""
        expired = self.db.execute(
            "SELECT number FROM held WHERE deadline < ? AND name IS NULL", (self.now,)
        ).fetchall()
        self.release_all(number for (number,) in expired)
        for session, boot in self.db.execute("SELECT id, boot FROM sessions").fetchall():
            if session != self.session and self._is_dead(session):
                self.bury(session)
                if boot != self._boot or not boot:
                    self.mark_all_stale()

    def bury(self, session: int) -> None:
        numbers = self.db.execute(
            "SELECT number FROM held WHERE session = ? AND name IS NULL", (session,)
        ).fetchall()
        self.release_all(number for (number,) in numbers)
        self.db.execute("UPDATE held SET session = ? WHERE session = ?", (DEAD, session))
        self.db.execute("DELETE FROM sessions WHERE id = ?", (session,))
        for (place,) in self.db.execute(
            "SELECT place FROM uncounted WHERE lister = ?", (session,)
        ).fetchall():
            self._void_count(place)

    def orphans(self, place: str) -> list[tuple[int, str]]:
        return self.db.execute(
            "SELECT number, name FROM held WHERE place = ? AND name IS NOT NULL"
            " AND (session = ? OR deadline < ?)",
            (place, DEAD, self.now),
        ).fetchall()

    def mark_stale(self, place: str) -> None:
        self.db.execute("UPDATE places SET stale = 1 WHERE place = ?", (place,))

    def mark_all_stale(self) -> None:
        self.db.execute("UPDATE places SET stale = 1")

    # -- what happened without an intent

    def counts(self, place: str, names: Iterable[str]) -> Counts:
        """Return what counts of a place there are, and in which names' folders they have been."""
        row = self.db.execute(
            "SELECT finished, begun FROM places WHERE place = ?", (place,)
        ).fetchone()
        finished, begun = (0, 0) if row is None else row
        if self.next_folder(place) is None:
            return Counts(finished, None, frozenset())
        return Counts(
            finished, begun, frozenset(name for name in names if self.is_counted(place, name))
        )

    def amend(self, place: str, effects: Sequence[Effect], then: Then | None) -> None:
        """Add what has happened without an intent to what is used, unless a count has seen it.

        Args:
            then: None where nobody knows.
        """
        now = self.counts(place, [effect.name for effect in effects])
        passed = frozenset[str]()
        if now.going is not None and (then is None or now.going == then.counts.going):
            if then is None or now.passed > then.counts.passed:
                # The folders where it has been since it may have begun to list before.
                self._void_count(place)
            else:
                passed = now.passed
        for effect in effects:
            name, more = effect.name, effect.after - effect.before
            seen = None if then is None else then.seen_by(now, name)
            if seen:
                continue
            if then is not None:
                for number in then.left_open[name]:
                    if self.end(number, effect.before) is None:
                        seen = None  # somebody may have ended it by what is there since
            if seen is None:
                logger.warning("%s may count twice, so %r has to be counted", name, place)
                if name in passed:
                    self._void_count(place)  # it would count so, too
                    passed = frozenset()
                self.mark_stale(place)
                more = more.at_least_nothing()
            self.note(place, name)
            self.use_counted(place, effect.scopes, more, more if name in passed else NOTHING)

    # -- counting a place anew

    def is_stale(self, place: str) -> bool:
        row = self.db.execute("SELECT stale FROM places WHERE place = ?", (place,)).fetchone()
        return row is None or bool(row[0])

    def begin_count(self, place: str) -> None:
        self._void_count(place)
        number = int.from_bytes(os.urandom(7))  # of no other count, of a place forgotten neither
        self.db.execute(
            "INSERT INTO places (place, stale, begun) VALUES (?, 1, ?)"
            " ON CONFLICT DO UPDATE SET begun = excluded.begun",
            (place, number),
        )
        self.db.execute("INSERT INTO uncounted (place, folder) VALUES (?, '')", (place,))
        self.begin_folder(place, "")

    def give_count_up(self, place: str) -> None:
        if self.db.execute(
            "SELECT 1 FROM uncounted WHERE place = ? AND lister = ?", (place, self.session)
        ).fetchone():
            self._void_count(place)

    def _void_count(self, place: str) -> None:
        self.write_back()
        self._counting = self._listed = None
        self.db.execute("DELETE FROM uncounted WHERE place = ?", (place,))
        self.db.execute("DELETE FROM noted WHERE place = ?", (place,))
        self.db.execute(
            "UPDATE tallies SET counted_bytes = 0, counted_objects = 0 WHERE place = ?", (place,)
        )

    def next_folder(self, place: str) -> str | None:
        row = self.db.execute(
            "SELECT folder FROM uncounted WHERE place = ? LIMIT 1", (place,)
        ).fetchone()
        return None if row is None else str(row[0])

    def begin_folder(self, place: str, folder: str) -> None:
        self._listed = None
        self.db.execute(
            "UPDATE uncounted SET lister = ? WHERE place = ? AND folder = ?",
            (self.session, place, folder),
        )
        self._note_open(place, folder)

    def _note_open(self, place: str, folder: str) -> None:
        for name, _ in self._open_beneath(place, folder):
            self.note(place, name)

    def note(self, place: str, name: str) -> None:
        if self._listed is None:
            rows = self.db.execute(
                "SELECT place, folder FROM uncounted WHERE lister IS NOT NULL"
            ).fetchall()
            self._listed = dict(rows)
        folder = self._listed.get(place)
        found = None if folder is None else in_folder(folder, name)
        if found is not None:
            self.db.execute("INSERT OR IGNORE INTO noted VALUES (?, ?, ?)", (place, *found))

    def noted(self, place: str, folder: str) -> Noted:
        self._check_lister(place, folder)
        return Noted.of(
            self.db.execute("SELECT name, beneath FROM noted WHERE place = ?", (place,))
        )

    def take_noted(self, place: str, folder: str, most: int) -> Noted:
        self._check_lister(place, folder)
        rows = self.db.execute(
            "SELECT name, beneath FROM noted WHERE place = ? LIMIT ?", (place, most)
        ).fetchall()
        self.db.executemany(
            "DELETE FROM noted WHERE place = ? AND name = ? AND beneath = ?",
            ((place, *row) for row in rows),
        )
        self._note_open(place, folder)
        return Noted.of(rows)

    def _check_lister(self, place: str, folder: str) -> None:
        if not self.db.execute(
            "SELECT 1 FROM uncounted WHERE place = ? AND folder = ? AND lister = ?",
            (place, folder, self.session),
        ).fetchone():
            raise given_up(place)

    def open_in_folder(self, place: str, folder: str) -> dict[str, int]:
        start = len(folder) + 1 if folder else 0
        rows = self._open_beneath(place, folder)
        return {name: number for name, number in rows if "/" not in name[start:]}

    def _open_beneath(self, place: str, folder: str) -> list[tuple[str, int]]:
        prefix = f"{folder}/" if folder else ""
        return self.db.execute(
            "SELECT name, number FROM held WHERE place = ? AND name >= ?"
            " AND (? = '' OR name < ?)",  # "0" comes right after "/"
            (place, prefix, folder, f"{folder}0"),
        ).fetchall()

    def count_folder(
        self, place: str, folder: str, subfolders: Sequence[str], found: Mapping[str, Amount]
    ) -> None:
        self._check_lister(place, folder)
        self._listed = None
        self.db.execute("DELETE FROM uncounted WHERE place = ? AND folder = ?", (place, folder))
        self.db.execute("DELETE FROM noted WHERE place = ?", (place,))
        self.db.executemany(
            "INSERT INTO uncounted (place, folder) VALUES (?, ?)",
            ((place, each) for each in subfolders),
        )
        for scope, amount in found.items():
            self.add_to_tally(place, scope, NOTHING, amount)

    def end_count(self, place: str) -> list[Correction]:
        self.write_back()
        corrections = []
        for scope, *numbers in self.db.execute(
            "SELECT scope, bytes, objects, counted_bytes, counted_objects FROM tallies"
            " WHERE place = ? ORDER BY scope",
            (place,),
        ).fetchall():
            recorded, found = Amount(*numbers[:2]), Amount(*numbers[2:])
            if recorded != found:
                corrections.append(Correction(scope, recorded, found))
                self.account(scope).use(found - recorded)
        self.db.execute(
            "UPDATE tallies SET bytes = counted_bytes, objects = counted_objects,"
            " counted_bytes = 0, counted_objects = 0 WHERE place = ?",
            (place,),
        )
        self.db.execute("UPDATE places SET stale = 0, finished = begun WHERE place = ?", (place,))
        return corrections

    def forget(self, place: str) -> None:
        self.write_back()
        numbers = self.db.execute("SELECT number FROM held WHERE place = ?", (place,)).fetchall()
        self.release_all(number for (number,) in numbers)
        self._void_count(place)
        self.end_count(place)
        self.db.execute("DELETE FROM tallies WHERE place = ?", (place,))
        self.db.execute("DELETE FROM places WHERE place = ?", (place,))

    def is_counted(self, place: str, name: str) -> bool:
        if self._counting is None:
            row = self.db.execute("SELECT EXISTS (SELECT 1 FROM uncounted)").fetchone()
            self._counting = bool(row[0])
        if not self._counting or self.next_folder(place) is None:
            return False
        folder = name
        while folder:
            folder = folder.rpartition("/")[0]
            if self.db.execute(
                "SELECT 1 FROM uncounted WHERE place = ? AND folder = ?", (place, folder)
            ).fetchone():
                return False
        return True
