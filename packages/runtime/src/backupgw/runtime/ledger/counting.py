"""The books' part in counting a place anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import Connection

from backupgw.kvstore.ledger import NOTHING, Amount, Correction, Effect
from backupgw.kvstore.ledger.noted import Noted, given_up, in_folder

from .doubts import DoubtingBooks
from .link import CLAIMING, Row, key_of


class PostgresBooks(DoubtingBooks):
    """The state behind one write transaction."""

    def __init__(self, db: Connection[Row], *, session: int, now: float, counting: bool) -> None:
        super().__init__(db, session=session, now=now, counting=counting)
        self._listed: dict[str, str] | None = None
        self._unnoted: set[tuple[str, str, int]] = set()

    def is_stale(self, place: str) -> bool:
        row = self.db.execute(
            "SELECT stale FROM ledger_places WHERE place = %s", (place,)
        ).fetchone()
        return row is None or bool(row[0])

    def amend(
        self, place: str, effects: Sequence[Effect], claims: Sequence[tuple[bytes, int] | None]
    ) -> None:
        """Add what has happened without an intent to what is used.

        Args:
            claims: key and holder of the claim under which each happened, which ends here.
        """
        self.db.execute("SELECT pg_advisory_xact_lock(%s)", (CLAIMING,))
        for effect, claim in zip(effects, claims, strict=True):
            more = effect.after - effect.before
            if claim is not None and self._end_claim(claim):
                for number in self.open_changes(place, effect.name):
                    self.end(number, effect.before)  # nobody else has had the name since
            elif claim is not None:
                # Somebody may have counted, or have told, that the same is gone.
                more = more.at_least_nothing()
                if self.is_counted(place, effect.name):
                    self._void_count(place)
                self.mark_stale(place)
            self.note(place, effect.name)
            self.use(place, effect.name, effect.scopes, more)
            for doubt in self._about(place, effect.name):
                doubt.believed, doubt.changed = doubt.believed + more, True

    def _end_claim(self, claim: tuple[bytes, int]) -> bool:
        """Give a claim back; returns whether it was there."""
        deleted = self.db.execute(
            "DELETE FROM ledger_claims WHERE key = %s AND holder = %s RETURNING waited", claim
        ).fetchone()
        if deleted is None:
            return False
        if deleted[0]:
            self.notify()
        return True

    def is_counted(self, place: str, name: str) -> bool:
        if not self._counting or self.next_folder(place) is None:
            return False
        folders = []
        folder = name
        while folder:
            folder = folder.rpartition("/")[0]
            folders.append(key_of(place, folder))
        row = self.db.execute(
            "SELECT 1 FROM ledger_uncounted WHERE key = ANY(%s) LIMIT 1", (folders,)
        ).fetchone()
        return row is None

    def begin_count(self, place: str) -> None:
        self._void_count(place)
        self._counting = True
        self._add_uncounted(place, [""])
        self.begin_folder(place, "")

    def _add_uncounted(self, place: str, folders: Sequence[str]) -> None:
        keys = [key_of(place, folder) for folder in folders]
        self.db.execute(
            "INSERT INTO ledger_uncounted (key, place, folder)"
            " SELECT key, %s, folder FROM unnest(%s::bytea[], %s::text[]) AS each(key, folder)",
            (place, keys, list(folders)),
        )

    def give_count_up(self, place: str) -> None:
        if self.db.execute(
            "SELECT 1 FROM ledger_uncounted WHERE place = %s AND lister = %s", (place, self.session)
        ).fetchone():
            self._void_count(place)

    def void_counts_of(self, session: int) -> None:
        for (place,) in self.db.execute(
            "SELECT place FROM ledger_uncounted WHERE lister = %s", (session,)
        ).fetchall():
            self._void_count(place)

    def _void_count(self, place: str) -> None:
        self.write_back()
        self._listed = None
        self.db.execute("DELETE FROM ledger_uncounted WHERE place = %s", (place,))
        self.db.execute("DELETE FROM ledger_noted WHERE place = %s", (place,))
        self.db.execute(
            "UPDATE ledger_tallies SET counted_bytes = 0, counted_objects = 0 WHERE place = %s",
            (place,),
        )

    def next_folder(self, place: str) -> str | None:
        row = self.db.execute(
            "SELECT folder FROM ledger_uncounted WHERE place = %s LIMIT 1", (place,)
        ).fetchone()
        return None if row is None else str(row[0])

    def begin_folder(self, place: str, folder: str) -> None:
        self._listed = None
        self.db.execute(
            "UPDATE ledger_uncounted SET lister = %s WHERE key = %s",
            (self.session, key_of(place, folder)),
        )
        self._note_open(place, folder)

    def _note_open(self, place: str, folder: str) -> None:
        for name, _ in self._open_beneath(place, folder):
            self.note(place, name)

    def note(self, place: str, name: str) -> None:
        if not self._counting:
            return
        if self._listed is None:
            rows = self.db.execute(
                "SELECT place, folder FROM ledger_uncounted WHERE lister IS NOT NULL"
            ).fetchall()
            self._listed = dict(rows)
        folder = self._listed.get(place)
        found = None if folder is None else in_folder(folder, name)
        if found is not None:
            self._unnoted.add((place, *found))

    def write_back(self) -> None:
        super().write_back()
        if self._unnoted:
            places, names, beneath = zip(*self._unnoted, strict=True)
            keys = [key_of(place, name, str(b)) for place, name, b in self._unnoted]
            self._unnoted.clear()
            self.db.execute(
                "INSERT INTO ledger_noted (key, place, name, beneath)"
                " SELECT key, place, name, beneath = 1"
                " FROM unnest(%s::bytea[], %s::text[], %s::text[], %s::integer[])"
                " AS each(key, place, name, beneath) ON CONFLICT DO NOTHING",
                (keys, list(places), list(names), list(beneath)),
            )

    def noted(self, place: str, folder: str) -> Noted:
        self._check_lister(place, folder)
        self.write_back()
        return Noted.of(
            self.db.execute(
                "SELECT name, beneath::integer FROM ledger_noted WHERE place = %s", (place,)
            ).fetchall()
        )

    def take_noted(self, place: str, folder: str, most: int) -> Noted:
        self._check_lister(place, folder)
        self.write_back()
        rows = self.db.execute(
            "DELETE FROM ledger_noted WHERE key IN"
            " (SELECT key FROM ledger_noted WHERE place = %s LIMIT %s)"
            " RETURNING name, beneath::integer",
            (place, most),
        ).fetchall()
        self._note_open(place, folder)
        return Noted.of(rows)

    def _check_lister(self, place: str, folder: str) -> None:
        if not self.db.execute(
            "SELECT 1 FROM ledger_uncounted WHERE key = %s AND lister = %s",
            (key_of(place, folder), self.session),
        ).fetchone():
            raise given_up(place)

    def open_in_folder(self, place: str, folder: str) -> dict[str, int]:
        start = len(folder) + 1 if folder else 0
        rows = self._open_beneath(place, folder)
        return {name: number for name, number in rows if "/" not in name[start:]}

    def _open_beneath(self, place: str, folder: str) -> list[tuple[str, int]]:
        self.write_back()
        prefix = f"{folder}/" if folder else ""
        # Doubts first: ending a name's intent tells its doubts, but not the other way round.
        rows = self.db.execute(
            "SELECT 0, name, number FROM ledger_doubts"
            " WHERE place = %(place)s AND starts_with(name, %(prefix)s)"
            " UNION ALL SELECT 1, name, number FROM ledger_held"
            " WHERE place = %(place)s AND starts_with(name, %(prefix)s) ORDER BY 1",
            {"place": place, "prefix": prefix},
        ).fetchall()
        return [(name, number) for _, name, number in rows]

    def count_folder(
        self, place: str, folder: str, subfolders: Sequence[str], found: Mapping[str, Amount]
    ) -> None:
        self._check_lister(place, folder)
        self.write_back()
        self._listed = None
        self.db.execute("DELETE FROM ledger_uncounted WHERE key = %s", (key_of(place, folder),))
        self.db.execute("DELETE FROM ledger_noted WHERE place = %s", (place,))
        if subfolders:
            self._add_uncounted(place, subfolders)
        for scope, amount in found.items():
            self.add_to_tally(place, scope, NOTHING, amount)

    def end_count(self, place: str) -> list[Correction]:
        self.write_back()
        corrections = []
        for scope, *numbers in self.db.execute(
            "SELECT scope, bytes, objects, counted_bytes, counted_objects FROM ledger_tallies"
            " WHERE place = %s ORDER BY scope",
            (place,),
        ).fetchall():
            recorded, found = Amount(*numbers[:2]), Amount(*numbers[2:])
            if recorded != found:
                corrections.append(Correction(scope, recorded, found))
                self.account(scope).use(found - recorded)
        self.db.execute(
            "UPDATE ledger_tallies SET bytes = counted_bytes, objects = counted_objects,"
            " counted_bytes = 0, counted_objects = 0 WHERE place = %s",
            (place,),
        )
        self.db.execute(
            "INSERT INTO ledger_places VALUES (%s, false)"
            " ON CONFLICT (place) DO UPDATE SET stale = false",
            (place,),
        )
        return corrections

    def forget(self, place: str) -> None:
        self.write_back()
        numbers = self.db.execute(
            "SELECT number FROM ledger_held WHERE place = %s", (place,)
        ).fetchall()
        self.release_all(number for (number,) in numbers)
        self._void_count(place)
        self.end_count(place)
        self.db.execute("DELETE FROM ledger_tallies WHERE place = %s", (place,))
        self.db.execute("DELETE FROM ledger_places WHERE place = %s", (place,))
        self._doubts = {n: doubt for n, doubt in self._doubts.items() if doubt.place != place}
        self.db.execute("DELETE FROM ledger_doubts WHERE place = %s", (place,))
