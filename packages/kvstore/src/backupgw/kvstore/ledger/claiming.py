"""Names claimed for a change of the place alone, without an account of what it holds.

For places where whoever creates a name cannot tell the place to refuse a second one: who changes a
name claims it, and writes down that he does. So whoever claims it next knows whether the one before
him has died in the middle of it, and what he had sent may still be on its way into the place.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .errors import LedgerError
from .held import HeldBooks, Needs
from .records import NOTHING, Change, Effect

if TYPE_CHECKING:
    from .transacted import Session

logger = logging.getLogger(__name__)

B = TypeVar("B", bound=HeldBooks)


class NameLedger(Protocol):
    """What claims names. All methods raise LedgerError, and may be called from any thread."""

    def open(self) -> None:
        """Get ready."""

    def close(self) -> None:
        """Let go of everything."""

    def claiming(
        self, place: str, names: Sequence[str], *, patience: float
    ) -> AbstractContextManager[bool]:
        """Be the only one, of all threads and processes, who changes these names of a place.

        Yields whether somebody has died in the middle of changing one of them. Entered and left by
        the same thread; not reentrant.

        Args:
            patience: seconds that one waits at most.

        Raises:
            NameBusy: somebody has one of them for longer.
        """

    def left_open(self, place: str) -> list[tuple[int, str]]:
        """Return the changes, by number and name, in the middle of which somebody has died."""

    def forget_left(self, place: str, left: Sequence[tuple[int, str]]) -> None:
        """Whatever these changes had sent has arrived by now."""


class Claiming(Generic[B]):
    """The part of a ledger over a session that is a `NameLedger`."""

    _session: Session[B]
    lease: float

    @contextlib.contextmanager
    def claiming(self, place: str, names: Sequence[str], *, patience: float) -> Iterator[bool]:
        effects = [Effect(name, (), NOTHING, NOTHING) for name in sorted(set(names))]

        def begin(books: B) -> tuple[Change, bool]:
            died = False
            for effect in effects:
                for number in books.open_changes(place, effect.name):
                    died |= books.drop(number)
            numbers = tuple(self._session.number() for _ in effects)
            change = Change(place, numbers, tuple(effects), tuple({} for _ in effects))
            books.hold_change(change, books.now + self.lease, known={}, atomic=False)
            return change, died

        needs = Needs(place=place, effects=effects, claimed=True, durable=True)
        with self._session.locks.changing(place, [effect.name for effect in effects], patience):
            change, died = self._session.run(begin, needs)
            try:
                yield died
            finally:
                self._end_claim(change)

    def _end_claim(self, change: Change) -> None:
        """Write down that all is done, before anybody else can have the names."""

        def end(books: B) -> bool:
            ended = [books.drop(number) for number in change.numbers]
            return all(ended)

        needs = Needs(numbers=change.numbers)
        try:
            kept = self._session.run(end, needs)
        except LedgerError as error:
            logger.debug("told later that names are free: %s", error)
            self._session.post(end, needs)
            return
        if not kept:
            names = ", ".join(effect.name for effect in change.effects)
            logger.warning(
                "%s: this process was taken for dead while it changed that, and somebody else may "
                "have changed it, too",
                names,
            )

    def left_open(self, place: str) -> list[tuple[int, str]]:
        def work(books: B) -> list[tuple[int, str]]:
            books.reclaim()
            return books.orphans(place)

        return self._session.run(work)

    def forget_left(self, place: str, left: Sequence[tuple[int, str]]) -> None:
        for number, name in left:
            with self._session.locks.trying(place, name) as free:
                if not free:
                    continue  # who has it now has ended it
                needs = Needs(numbers=[number], place=place, names=[name], claimed=True)
                self._session.run(partial(_drop, number), needs)


def _drop(number: int, books: HeldBooks) -> None:
    books.drop(number)
