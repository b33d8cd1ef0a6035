"""Names that a buried session was changing, which may yet turn out to be alive.

No file system lets us keep a gateway that wakes up from finishing its change. It says so when it
has, and the name is looked at again. Until somebody did, what the name counts with may be wrong,
and three rules keep that from becoming a drift that nobody finds:

- Who looks at the name meanwhile, to change it or to count it, lets it count with what was found,
  or the change would be added to something else than what it was made to.
- Who looked before the session said so may not have seen it. Only who looked later ends a doubt.
- A session that says so before anybody ended its intent leaves a doubt as well: somebody else may
  have the name already, and have looked too early.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from psycopg import Connection

from backupgw.kvstore.ledger import Amount, Change, Repair
from backupgw.kvstore.ledger.held import HeldRow

from .books import DEAD, Rows
from .link import Row

logger = logging.getLogger(__name__)

DOUBTED = 600.0
"""Seconds after which a name that a buried session was changing is looked at once more."""

READ_DOUBTS = "SELECT number, place, name, scopes, bytes, objects, since, late FROM ledger_doubts"

_WRITE_DOUBTS = """
    INSERT INTO ledger_doubts (number, place, name, scopes, bytes, objects, late, since)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (number) DO UPDATE SET
        bytes = excluded.bytes, objects = excluded.objects, late = excluded.late,
        since = excluded.since
"""


@dataclass(slots=True)
class Doubt:
    """A name whose intent was ended for a buried session.

    Attributes:
        believed: what the name counts with, in all doubts of a name the same; where there is an
            intent for it, that starts from it.
        late: the session said that it changed the name after all.
        since: when it did, or else when its intent was ended.
    """

    number: int
    place: str
    name: str
    scopes: str
    believed: Amount
    since: float
    late: bool = False
    changed: bool = False


class DoubtingBooks(Rows):
    """Rows, and what is in doubt about those that ended."""

    def __init__(self, db: Connection[Row], *, session: int, now: float, counting: bool) -> None:
        super().__init__(db, session=session, now=now, counting=counting)
        self._doubts: dict[int, Doubt] = {}
        self._settled_doubts: list[int] = []

    def fetched_doubts(self, rows: Iterable[Row]) -> None:
        for number, place, name, scopes, size, objects, *rest in rows:
            self._doubts[number] = Doubt(number, place, name, scopes, Amount(size, objects), *rest)

    def _about(self, place: str, name: str) -> list[Doubt]:
        doubts = self._doubts.values()
        return [doubt for doubt in doubts if (doubt.place, doubt.name) == (place, name)]

    # -- an intent ends for a buried session

    def take(self, number: int) -> HeldRow | None:
        stored = self._stored(number)
        row = super().take(number)
        if row is not None and stored is not None and stored.session == DEAD:
            self._doubt(row)
        return row

    def end_change(self, change: Change, found: Sequence[Amount]) -> None:
        for number in change.numbers:
            stored = self._stored(number)
            if stored is not None and stored.session == DEAD:
                self._doubt(stored.row, late=True)
        super().end_change(change, found)

    def _doubt(self, row: HeldRow, *, late: bool = False) -> None:
        if row.name is not None and row.scopes is not None:
            named = (row.place, row.name, row.scopes, row.before)
            self._doubts[row.number] = Doubt(row.number, *named, self.now, late, changed=True)

    def was_ended(self, place: str, number: int) -> None:
        doubt = self._doubts.get(number)
        if doubt is not None:
            doubt.late = doubt.changed = True
            doubt.since = self.now
        elif number >> 32 != self.session:
            logger.warning("a change ended long after its session; the place is to be counted")
            self.mark_stale(place)

    def mark_stale(self, place: str) -> None:
        """Ask for a count of the place."""
        self.db.execute("UPDATE ledger_places SET stale = true WHERE place = %s", (place,))

    def mark_all_stale(self) -> None:
        """Ask for a count of every place."""
        self.db.execute("UPDATE ledger_places SET stale = true")

    # -- somebody looked at a name

    def known(self, place: str, name: str, found: Amount) -> None:
        for doubt in self._about(place, name):
            doubt.believed, doubt.changed = found, True

    def _found(self, place: str, name: str, found: Amount) -> None:
        """Let a name in doubt count with what was found by who alone may change it."""
        for doubt in self._about(place, name)[:1]:
            self.use(place, name, json.loads(doubt.scopes), found - doubt.believed)
            self.known(place, name, found)

    def hold_change(
        self, change: Change, deadline: float, *, known: Mapping[str, Amount], atomic: bool
    ) -> None:
        for effect in change.effects:
            self._found(change.place, effect.name, effect.before)
        super().hold_change(change, deadline, known=known, atomic=atomic)

    def end(self, number: int, found: Amount | None = None) -> Repair | None:
        if found is None or self._stored(number) is not None:
            return super().end(number, found)
        doubt = self._doubts.get(number)
        if doubt is None:
            return None
        for other in self.open_changes(doubt.place, doubt.name):
            super().end(other, found)  # who made it let go of the name, and will settle it in vain
        believed = doubt.believed
        self._found(doubt.place, doubt.name, found)
        return None if found == believed else Repair(doubt.name, number, believed, believed, found)

    def end_orphan(self, number: int, found: Amount, listed: float) -> Repair | None:
        repair = self.end(number, found)
        doubt = self._doubts.get(number)
        if doubt is not None and doubt.since < (listed if doubt.late else self.now - DOUBTED):
            del self._doubts[number]
            self._settled_doubts.append(number)
        return repair

    def orphans(self, place: str) -> list[tuple[int, str]]:
        orphans = super().orphans(place)
        return (
            orphans
            + self.db.execute(
                "SELECT number, name FROM ledger_doubts WHERE place = %s AND (late OR since < %s)",
                (place, self.now - DOUBTED),
            ).fetchall()
        )

    # -- writing back

    def write_back(self) -> None:
        super().write_back()
        for doubt in self._doubts.values():
            if doubt.changed:
                doubt.changed = False
                numbers = (*doubt.believed, doubt.late, doubt.since)
                values = (doubt.number, doubt.place, doubt.name, doubt.scopes, *numbers)
                self.db.execute(_WRITE_DOUBTS, values)
        if self._settled_doubts:
            settled, self._settled_doubts = self._settled_doubts, []
            self.db.execute("DELETE FROM ledger_doubts WHERE number = ANY(%s)", (settled,))
