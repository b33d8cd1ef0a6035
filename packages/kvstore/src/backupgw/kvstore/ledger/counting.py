"""Counting a place anew while it is in use, the same on every ledger.

A count lists one folder after the other. Changes of names in a folder go on while it is listed; a
list may show such a name before its change or after it, or not at all. What makes the count exact
all the same:

- From the transaction that begins a folder on, each intent for a name beneath it is noted, in the
  intent's own transaction (`HeldBooks.note`); and so are, at the beginning, all that are open. A
  change of the place lies between its intent and its end. So a name that is not noted did not
  change while the folder was listed, and the list has said of it what it holds.
- Names that are noted are looked up when the list is done, until only some are left that clients
  are changing just now. For those the folder is locked: changes beneath it wait then, for as long
  as the ones under way take and some looks at names.
- Within the lock, the rest is looked up, and one transaction adds the folder to the count. It does
  so only if no more names were noted meanwhile (a removal may be told late, `amend`), and only
  where the count is still this process's. From then on changes of the folder's names add to the
  count themselves (`HeldBooks.is_counted`).
- A folder beneath that gets an item meanwhile may be missing from the list. It is noted with the
  intent, and is listed in its turn like those of the list.

Whatever dies: notes are on record with the intents they are for. With the process that counts its
count is void, and the accounts are as they were; with others, their intents are open, and what has
come of them is looked up like the rest.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Generic, TypeVar

from ..backends.errors import ObjectNotFound
from .base import Belongs, Listing, Lookup
from .held import HeldBooks, Needs
from .listed import Listed
from .noted import Noted
from .records import NOTHING, Amount, Report

if TYPE_CHECKING:
    from .transacted import Session

logger = logging.getLogger(__name__)

FEW = 8
"""Names that are looked up while their folder is locked; more are looked up before."""

SMALL = 256
"""Items up to which a folder is locked as soon as it is listed: it was listed in a moment."""

PAGE = 500
"""Names taken from the notes in one transaction, so that others get at the ledger too."""

B = TypeVar("B", bound=HeldBooks)


class Counting(Generic[B]):
    """The part of a ledger over a session that counts places."""

    _session: Session[B]

    def needs_reconcile(self, place: str) -> bool:
        return self._session.run(lambda books: books.is_stale(place))

    def reconcile(
        self,
        place: str,
        listing: Listing,
        belongs: Belongs,
        *,
        lookup: Lookup | None = None,
        only_if_needed: bool = False,
    ) -> Report:
        with self._session.locks.counting(place):
            report = Report(place)
            if only_if_needed and not self.needs_reconcile(place):
                return report
            try:
                with contextlib.closing(
                    _Count(self._session, report, listing, belongs, lookup)
                ) as count:
                    count.run()
            except BaseException:
                self._session.post(lambda books: books.give_count_up(place))
                raise
            return report


class _Count(Generic[B]):
    """One count of a place."""

    def __init__(
        self,
        session: Session[B],
        report: Report,
        listing: Listing,
        belongs: Belongs,
        lookup: Lookup | None,
    ) -> None:
        self._session = session
        self._place = report.place
        self._report = report
        self._listing = listing
        self._belongs = belongs
        self._lookup = lookup
        self._listed = Listed()

    def close(self) -> None:
        self._listed.close()

    def run(self) -> None:
        """Count all folders, and correct the accounts."""
        place = self._place
        self._session.run(lambda books: books.begin_count(place), Needs(durable=True))
        folder: str | None = ""
        while folder is not None:
            subfolders = self._list(folder)
            self._listed.count_once()  # takes its time, and is not to be done within the lock
            # With nobody to look names up the folder is listed once more, and only once.
            if self._listed.count > SMALL and self._lookup is not None:
                self._catch_up(folder, subfolders)
            with self._session.locks.listing(place, folder):
                folder = self._end(folder, subfolders)
            self._report.folders += 1

    def _list(self, folder: str) -> set[str]:
        """Let what a folder holds count, and return the folders in it."""
        listed = self._listed
        subfolders: set[str] = set()
        listed.begin()
        try:
            for entry in self._listing(folder):
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.directory:
                    subfolders.add(name)
                else:
                    listed.add(name, entry.size, tuple(self._belongs(name)))
        except ObjectNotFound:
            logger.debug("%s went away before it was counted", folder)
        return subfolders

    def _catch_up(self, folder: str, subfolders: set[str]) -> None:
        """Look up what has changed while the folder was listed, until it is little enough.

        Where changes come faster than looks, they have to wait in the end: no more names are looked
        up than the folder has, more or less.
        """
        for _ in range(10 + self._listed.count // PAGE):
            noted = self._session.run(lambda books: books.take_noted(self._place, folder, PAGE))
            subfolders |= noted.folders
            self._look(folder, noted.names)
            if len(noted.names) + len(noted.folders) <= FEW:
                return

    def _look(self, folder: str, names: Set[str]) -> Mapping[str, Amount]:
        """Look names of a folder up, let them count with what is found, and return that."""
        lookup = self._lookup
        if lookup is None:
            found = dict.fromkeys(names, NOTHING) | self._listed_again(folder, names)
        else:
            found = {name: lookup(name) for name in names}
        for name, amount in found.items():
            self._listed.correct(name, amount, tuple(self._belongs(name)))
        return found

    def _listed_again(self, folder: str, names: Set[str]) -> dict[str, Amount]:
        found: dict[str, Amount] = {}
        if names:
            with contextlib.suppress(ObjectNotFound):
                for entry in self._listing(folder):
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if name in names and not entry.directory:
                        found[name] = Amount(entry.size, 1)
        return found

    def _end(self, folder: str, subfolders: set[str]) -> str | None:
        """Make what was found part of the count, with the folder locked; return the next folder,
        None after the last."""
        found: dict[str, Amount] = {}
        while True:
            left_open = self._look_at_rest(folder, subfolders, found)
            done, following = self._add_up(folder, subfolders, found, left_open)
            if done:
                return following

    def _look_at_rest(
        self, folder: str, subfolders: set[str], found: dict[str, Amount]
    ) -> dict[str, int]:
        """Look up what is still noted, and return the intents that are open."""
        place = self._place

        def rest(books: B) -> tuple[Noted, dict[str, int]]:
            return books.noted(place, folder), books.open_in_folder(place, folder)

        needs = Needs(place=place, folder=folder, claimed=True)
        noted, left_open = self._session.run(rest, needs)
        subfolders |= noted.folders
        found |= self._look(folder, (noted.names | left_open.keys()) - found.keys())
        return left_open

    def _add_up(
        self,
        folder: str,
        subfolders: set[str],
        found: dict[str, Amount],
        left_open: dict[str, int],
    ) -> tuple[bool, str | None]:
        """Count the folder with what was found, unless more is noted by now."""
        place, report = self._place, self._report
        sums = self._listed.by_scope()

        def end(books: B) -> tuple[bool, str | None]:
            now = books.noted(place, folder)
            if not (now.names <= found.keys() and now.folders <= subfolders):
                return False, None
            for name, number in left_open.items():
                books.end(number, found[name])
            books.count_folder(place, folder, sorted(subfolders), sums)
            following = books.next_folder(place)
            if following is None:
                report.corrections = books.end_count(place)
            else:
                books.begin_folder(place, following)
            return True, following

        numbers = list(left_open.values())
        needs = Needs(list(sums), numbers, place=place, folder=folder, claimed=True, durable=True)
        done, following = self._session.run(end, needs)
        if done:
            for scopes, amount in self._listed.totals():
                if scopes:
                    report.counted += amount
        return done, following
