"""Changes of items that are there, accounted: removals, moves and copies.

Within a lock on all names that a change concerns, it looks at what they hold, records the intent,
changes the place and settles. What is deleted or set aside frees what it held; what is moved or
copied over another item costs the difference. Around a trash, what is deleted or replaced moves to
another name and stays counted, and the quota records both names before anything happens
(`trash_keeper`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from ..backends.base import Backend, ItemInfo, require_found
from ..backends.errors import ObjectExists, ObjectNotFound, UnsupportedOperation
from ..ledger import (
    NOTHING,
    Amount,
    Change,
    Effect,
    Item,
    Ledger,
    LedgerError,
    LimitExceeded,
    NameLost,
    Report,
)
from ..names import KernelPath, check_path, is_reserved
from .base import Layer
from .quota_writer import ExemptRoom, carry_out
from .trash_keeper import Keeper

logger = logging.getLogger(__name__)

T = TypeVar("T")

EXEMPT_SIZE = 1 << 20
"""Bytes of an exempt item at most: many times a lock, too little to keep data in."""

NAMES_REMEMBERED = 256
"""Names whose scopes are known without asking; as many as change at a time."""


class CountedChanges(Layer, Keeper):
    """A place whose items are counted as they change; how they get there is up to a subclass.

    Args:
        inner, ledger, scopes, place, exempt: as of `quota.QuotaLayer`.
    """

    def __init__(
        self,
        inner: Backend,
        ledger: Ledger,
        scopes: Callable[[str], Sequence[str]],
        *,
        place: str,
        exempt: Callable[[str], bool],
    ) -> None:
        super().__init__(inner)
        self.ledger = ledger
        self.place = place
        self._scopes = scopes
        self._exempt = exempt
        self._keeper = inner if isinstance(inner, Keeper) else None
        # Asked several times for each upload, by whoever is around this layer too.
        self._counted_in = lru_cache(NAMES_REMEMBERED)(self._look_scopes_up)

    def scopes_of(self, name: str) -> tuple[str, ...]:
        """Return the scopes that a name counts towards; none where it is exempt.

        What lies in a trash counts as it did before.
        """
        if self._keeper is not None and is_reserved(name):
            former = self._keeper.kept_name(name)
            if former is None:
                return ()
            name = former
        return self._counted_in(name)

    def _look_scopes_up(self, name: str) -> tuple[str, ...]:
        return () if self._exempt(name) else tuple(dict.fromkeys(self._scopes(name)))

    def held_by(self, name: str) -> Amount:
        """Return what a name holds in the place now."""
        kernel = self._keeper is not None and is_reserved(name)  # as the ledger wrote it down
        if not kernel and self.inner.surely_missing(name):
            return NOTHING
        info = self.inner.info(KernelPath(name) if kernel else name)
        if not info.exists or info.directory:
            return NOTHING
        return Item.of(info.size, 0 if kernel else self.inner.file_number(name))

    def recover(self) -> Report:
        """Give back what dead writers hold, and settle the changes that they left open."""
        report = self.ledger.recover(self.place, self.held_by)
        for repair in report.repairs:
            logger.warning("%s: settled after a crash at %d bytes", repair.name, repair.found.bytes)
        return report

    # -- ways out, and about

    def delete(self, name: str) -> None:
        kept = self.keep_at(name)
        if kept is None:
            self._remove(name, lambda: self.inner.delete(name))
        else:
            self.delete_to(name, kept)

    def delete_sized(self, name: str) -> int:
        if not self.scopes_of(check_path(name)):
            return self.inner.delete_sized(name)
        kept = self.keep_at(name)
        if kept is not None:
            return self._delete_to(name, kept)
        return self._remove(name, lambda: self.inner.delete(name))[1]

    def delete_to(self, name: str, kept: KernelPath) -> None:
        self._delete_to(name, kept)

    def _delete_to(self, name: str, kept: KernelPath) -> int:
        """Return how many bytes it had, 0 where it is not counted."""
        check_path(name)
        scopes, keeper = self.scopes_of(name), self._required_keeper()
        if not scopes:
            keeper.delete_to(name, kept)
            return 0
        with self.ledger.changing(self.place, [name, kept]):
            before = self.held_by(name)
            if not before:
                raise ObjectNotFound(name)
            effects = [Effect(name, scopes, before, NOTHING), Effect(kept, scopes, NOTHING, before)]
            try:
                change = self._intend_moving(effects, atomic=self.inner.capabilities.move)
            except NameLost:
                raise
            except LedgerError as error:
                logger.warning("%s is deleted without the ledger, which says: %s", name, error)
                keeper.delete_to(name, kept)
                self.ledger.amend(self.place, effects)  # a count may be at one of the names
                return before.bytes
            self._carry_out(change, lambda: keeper.delete_to(name, kept))
            return before.bytes

    def quarantine(self, name: str) -> str:
        return self._remove(name, lambda: self.inner.quarantine(name))[0]

    def _remove(self, name: str, work: Callable[[], T]) -> tuple[T, int]:
        """Do the work that takes an item away; return what it returned, and how many bytes the item
        had, 0 where it is not counted."""
        check_path(name)
        if not self.scopes_of(name):
            return work(), 0
        with self.ledger.changing(self.place, [name]):
            effect = self._effect(name, after=NOTHING)
            if not effect.before:
                raise ObjectNotFound(name)
            try:
                change = self.ledger.intend(self.place, [effect])
            except NameLost:
                raise  # somebody may be writing it
            except LedgerError as error:
                # A full disk must not keep anybody from making room on it.
                logger.warning("%s is removed, and the ledger told later: %s", name, error)
                result = work()
                self.ledger.amend(self.place, [effect])
                return result, effect.before.bytes
            return self._carry_out(change, work), effect.before.bytes

    def move(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        if name == new_name or not (self.scopes_of(name) or self.scopes_of(new_name)):
            self.inner.move(name, new_name)
            return
        kept = self.keep_at(new_name, replaced=True)
        if kept is not None:
            self.move_keeping(name, new_name, kept)
            return
        with self.ledger.changing(self.place, {name, new_name}):
            effects = self._effects_of_move(name, new_name)
            self._change(effects, lambda: self.inner.move(name, new_name))

    def move_keeping(self, name: str, new_name: str, kept: KernelPath) -> None:
        check_path(name)
        check_path(new_name)
        keeper = self._required_keeper()
        with self.ledger.changing(self.place, {name, new_name, kept}):
            effects = self._effects_of_move(name, new_name)
            replaced = effects[1].before
            if not replaced:
                self._change(effects, lambda: keeper.move_keeping(name, new_name, kept))
                return
            effects.append(Effect(kept, self.scopes_of(new_name), NOTHING, replaced))
            change = self._intend_moving(_counted(effects), atomic=False)
            self._carry_out(change, lambda: keeper.move_keeping(name, new_name, kept))

    def move_if_absent(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        with self.ledger.changing(self.place, {name, new_name}):
            effects = self._effects_of_move(name, new_name)
            if self.inner.info(new_name).exists:
                raise ObjectExists(f"{new_name} exists")
            if isinstance(name, KernelPath) and (effects := _counted(effects)):
                # An operator brings something back, which clients may have left no room for.
                change = self._intend_moving(effects, atomic=self.inner.capabilities.move)
                self._carry_out(change, lambda: self.inner.move_if_absent(name, new_name))
                return
            self._change(effects, lambda: self.inner.move_if_absent(name, new_name))

    def _effects_of_move(self, name: str, new_name: str) -> list[Effect]:
        size = require_found(self.inner.info(name)).size
        if self._exempt(new_name):
            ExemptRoom(new_name, EXEMPT_SIZE).announce(size)
        return [
            self._effect(name, after=NOTHING),
            self._effect(new_name, after=Amount(size, 1)),
        ]

    def copy(self, name: str, new_name: str) -> None:
        if not self.inner.capabilities.copy or not self.scopes_of(new_name):
            super().copy(name, new_name)  # by way of a writer, which is accounted or measured
            return
        check_path(name)
        check_path(new_name)
        with self.ledger.changing(self.place, {name, new_name}):
            size = require_found(self.inner.info(name)).size
            effect = self._effect(new_name, after=Amount(size, 1))
            self._change([effect], lambda: self.inner.copy(name, new_name))

    # -- what a trash inside keeps, told to a quota outside

    def keep_at(self, name: str, *, replaced: bool = False) -> KernelPath | None:
        return None if self._keeper is None else self._keeper.keep_at(name, replaced=replaced)

    def kept_name(self, path: str) -> str | None:
        return None if self._keeper is None else self._keeper.kept_name(path)

    def list_all(self, folder: str) -> Iterator[ItemInfo]:
        return self.inner.list(folder) if self._keeper is None else self._keeper.list_all(folder)

    def _required_keeper(self) -> Keeper:
        if self._keeper is None:
            raise UnsupportedOperation(f"{self.inner!r} keeps nothing")
        return self._keeper

    # -- how a change is told to the ledger
    def _effect(self, name: str, *, after: Amount) -> Effect:
        return Effect(name, self.scopes_of(name), self.held_by(name), after)

    def _intend_moving(self, effects: Sequence[Effect], *, atomic: bool) -> Change:
        """Record a change that needs no room when it has happened, if not more on the way.

        Where there is none on the way either it is done all the same: nobody must be kept from
        deleting. A crash right then is what `reconcile` is for.
        """
        try:
            return self.ledger.intend(self.place, effects, atomic=atomic)
        except LimitExceeded:
            if atomic:
                raise
        return self.ledger.intend(self.place, effects, atomic=True)

    def _change(self, effects: Sequence[Effect], work: Callable[[], None]) -> None:
        effects = _counted(effects)
        if not effects:
            work()
            return
        atomic = len(effects) == 1 or self.inner.capabilities.move
        try:
            change = self.ledger.intend(self.place, effects, atomic=atomic)
        except LimitExceeded:
            if not self.recover().repairs:
                raise
            change = self.ledger.intend(self.place, effects, atomic=atomic)
        self._carry_out(change, work)

    def _carry_out(self, change: Change, work: Callable[[], T]) -> T:
        return carry_out(self.ledger, change, work, self.held_by)


def _counted(effects: Iterable[Effect]) -> list[Effect]:
    return [effect for effect in effects if effect.scopes]
