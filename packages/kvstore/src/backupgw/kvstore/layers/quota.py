"""Limits on what scopes may hold, kept by a ledger, in front of any backend.

A body is reserved in steps as it arrives, so a writer that lies or dawdles holds little more than
what it has sent. Just before an item gets or loses its name, within a lock on that name, the layer
looks at what the name holds, records the intent, changes the place and settles; of a small new item
on a local disk it records the file that is to have the name, and does not look. What is counted is
what names hold: replacing an item costs the difference, and deleting it, or setting it aside as
damaged, frees what it held.

Reading goes through untouched, native hash and concatenation included. Every way in which an item
can appear, change its size or vanish is accounted: writers, resumed ones too, delete, move, copy,
quarantine, and by way of the writers store and defrag. Around a trash, what is deleted or replaced
only moves to another name and stays counted, in the same scopes, until the trash lets go of it;
the quota records both names before anything happens (`trash_keeper`). A limit set here holds only
for who comes through here; `reconcile` corrects the accounts after somebody did not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from ..backends.base import (
    Backend,
    Capabilities,
    ItemInfo,
    Loaded,
    Quota,
    Reader,
    Writer,
    require_found,
)
from ..backends.errors import ObjectExists, ObjectNotFound, UnsupportedOperation
from ..backends.gated import GatedWriter
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
from .base import Layer, changed
from .quota_gate import NewItemGate
from .quota_writer import UNRESERVED, ExemptRoom, Parked, QuotaWriter, Room, carry_out
from .trash_keeper import Keeper

logger = logging.getLogger(__name__)

T = TypeVar("T")

EXEMPT_SIZE = 1 << 20
"""Bytes of an exempt item at most: many times a lock, too little to keep data in."""


_NAMES_REMEMBERED = 256
"""Names whose scopes are known without asking; as many as change at a time."""

_FOLDERS_REMEMBERED = 10_000
"""Folders of which it is known how their items count."""


class QuotaLayer(Layer, Keeper):
    """A backend whose scopes have limits.

    Args:
        inner: where the items lie.
        ledger: opened and closed by whoever made it; it may serve several layers.
        scopes: which scopes a name counts towards; the same for a name at all times. A name
            without scopes is not counted.
        place: what the ledger calls the inner backend, unique among those that it serves.
        exempt: names that always get through, such as locks: not counted, and never refused up to
            EXEMPT_SIZE bytes each.
        alike: whether all names directly in a folder surely count towards the same scopes, and none
            of them is exempt unless all are; asked once for a folder.
        total: the scope that `quota` reports.
        parked: seconds that the room of a checkpointed write is kept; no shorter than the place
            keeps the checkpoint.
        whole: a body whose size is announced has all its room from the beginning, instead of in
            steps: of many at a time, exactly those get through that have room. For services whose
            clients cannot lie for long, since what they announced is given back when they are late.
            (What is small and new has it from the moment at which it gets its name; of many such,
            too, those get through that have room.)
        told: the room of a checkpoint outlives this process from `keep_writer` on, not before: for
            who writes tokens down where a later process finds them. Whatever it dies between, no
            room is kept of which nobody knows.
    """

    def __init__(
        self,
        inner: Backend,
        ledger: Ledger,
        scopes: Callable[[str], Sequence[str]],
        *,
        place: str = "",
        exempt: Callable[[str], bool] = lambda _name: False,
        alike: Callable[[str], bool] = lambda _folder: False,
        total: str | None = None,
        parked: float = 14 * 24 * 3600.0,
        whole: bool = False,
        told: bool = False,
    ) -> None:
        super().__init__(inner)
        self.ledger = ledger
        self.place = place
        self.parked = parked
        self.whole = whole
        self.told = told
        self._scopes = scopes
        self._exempt = exempt
        self._alike = alike
        self._gates: dict[str, NewItemGate] = {}
        self._gate_of = lru_cache(_NAMES_REMEMBERED)(self._new_gate)  # one for all its folders
        self._gated: type[Writer] | None = None
        """The kind of writer that took a gate."""
        self._total = total
        self._keeper = inner if isinstance(inner, Keeper) else None
        # Asked several times for each upload, by whoever is around this layer too.
        self._counted_in = lru_cache(_NAMES_REMEMBERED)(self._look_scopes_up)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        inner = self.inner.capabilities
        return changed(
            super().capabilities,
            resumable_write=inner.resumable_write,
            copy=inner.copy,
            hash=inner.hash,
            quota=self._total is not None or inner.quota,
        )

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

    # -- the place itself

    def destroy(self) -> None:
        self.inner.destroy()
        self.ledger.forget(self.place)

    def open(self) -> None:
        """Open the place, settle what died, and count the place if the ledger does not know it.

        The count lists everything once; other processes that open the place meanwhile wait for it.
        """
        self.inner.open()
        try:
            if self.ledger.needs_reconcile(self.place):
                logger.info("counting what %r holds", self.inner)
                self.reconcile(only_if_needed=True)
            else:
                self.recover()
        except BaseException:
            self.inner.close()
            raise

    def recover(self) -> Report:
        """Give back what dead writers hold, and settle the changes that they left open."""
        report = self.ledger.recover(self.place, self.held_by)
        for repair in report.repairs:
            logger.warning("%s: settled after a crash at %d bytes", repair.name, repair.found.bytes)
        return report

    def reconcile(self, *, only_if_needed: bool = False) -> Report:
        """Count the place anew while it is in use; return every correction.

        Raises:
            BackendError: the place could not be listed; nothing was corrected.
        """
        recovered = self.recover()
        report = self.ledger.reconcile(
            self.place, self.list_all, self.scopes_of, only_if_needed=only_if_needed
        )
        report.repairs, report.released = recovered.repairs, recovered.released
        for correction in report.corrections:
            logger.warning(
                "%s: corrected from %d bytes in %d objects to %d in %d",
                correction.scope,
                correction.recorded.bytes,
                correction.recorded.objects,
                correction.found.bytes,
                correction.found.objects,
            )
        return report

    def reap(self, older_than: float) -> int:
        self.recover()
        return self.inner.reap(older_than)

    def quota(self) -> Quota:
        if self._total is None:
            return self.inner.quota()
        usage = self.ledger.usage(self._total)
        limit = usage.limit.hard_bytes
        return Quota(-1 if limit is None else limit, max(0, usage.used.bytes))

    # -- ways in

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        if if_absent and size is not None and size <= UNRESERVED:
            # What is small and new is counted as it gets its name, and not before.
            gate = self._gates.get(name.rpartition("/")[0]) or self._gate(name)
            if gate is not None:
                writer = self.inner.open_writer(
                    name, size=size, if_absent=True, expected_hash=expected_hash
                )
                kind = type(writer)
                if kind is not self._gated and isinstance(writer, GatedWriter):
                    self._gated = kind  # to ask for an abstract class takes longer than all else
                if kind is self._gated:
                    gated: Any = writer
                    if gated.gate is None:
                        gated.gate, gated.known_as = gate, name
                        gated.anew = expected_hash is None
                        return writer
                room = self._room(name, size=size, if_absent=True)
                return QuotaWriter(writer, room, anew=expected_hash is None)
        check_path(name)
        self.before_writing(name)
        room = self._room(name, size=size, if_absent=if_absent)
        if size is not None:
            room.announce(size)
        try:
            writer = self.inner.open_writer(
                name, size=size, if_absent=if_absent, expected_hash=expected_hash
            )
        except BaseException:
            room.give_back()
            raise
        return QuotaWriter(writer, room, anew=expected_hash is None)

    def before_writing(self, name: str) -> None:
        """Get accounts ready; told before an item is written, of each name or folder at first."""

    def _gate(self, name: str) -> NewItemGate | None:
        """Return the gate for new items like this one; None where they are not counted."""
        check_path(name)
        gates = self._gates  # those of other limits, perhaps, before this is done
        self.before_writing(name)
        scopes = self.scopes_of(name)
        if not scopes:
            return None
        gate = self._gate_of(scopes)
        folder = name.rpartition("/")[0]
        if folder and self._alike(folder):
            if len(gates) >= _FOLDERS_REMEMBERED:
                gates.clear()
            gates[folder] = gate
        return gate

    def _new_gate(self, scopes: tuple[str, ...]) -> NewItemGate:
        return NewItemGate(
            self.ledger,
            self.place,
            scopes,
            lookup=self.held_by,
            numbered=self._numbered(),
            room=lambda name, size: self._room(name, size=size, if_absent=True),
        )

    def resume_writer(self, token: str) -> Writer:
        parked = Parked.from_token(token)
        room = self._room(parked.name, size=parked.size, if_absent=parked.if_absent)
        room.take_over(parked)
        try:
            if not parked.token:
                writer = self.inner.open_writer(
                    parked.name, size=parked.size, if_absent=parked.if_absent
                )
                return QuotaWriter(writer, room, anew=True)
            writer = self.inner.resume_writer(parked.token)
        except ObjectNotFound:
            room.give_back()
            raise
        except BaseException:
            number = room.park(parked.offset)
            if self.told and number is not None:
                self.ledger.park(number, self.parked)
            raise
        return QuotaWriter(writer, room, offset=_offset_of(writer, parked))

    def reserve_writer(
        self, name: str, *, size: int, if_absent: bool = False, seconds: float | None = None
    ) -> str:
        if not self.inner.capabilities.resumable_write:
            raise UnsupportedOperation(f"{self.inner!r} cannot carry writes on")
        check_path(name)
        self.before_writing(name)
        room = self._room(name, size=size, if_absent=if_absent)
        if size > UNRESERVED or isinstance(room, ExemptRoom):
            token = super().reserve_writer(name, size=size, if_absent=if_absent, seconds=seconds)
            self.keep_writer(token)
            return token
        # There is nothing yet that the place would have to keep: only room.
        number = room.keep_for_later(seconds)
        return Parked("", name, size, if_absent, 0, number, later=True).to_token()

    def keep_writer(self, token: str) -> None:
        number = Parked.from_token(token).number
        if self.told and number is not None:
            self.ledger.park(number, self.parked)

    def abort_writer(self, token: str) -> None:
        parked = Parked.from_token(token)
        if parked.token:
            self.inner.abort_writer(parked.token)
        if parked.number is not None:
            self.ledger.release(parked.number)

    def _room(self, name: str, *, size: int | None, if_absent: bool) -> Room | ExemptRoom:
        scopes = self.scopes_of(name)
        if not scopes:
            return ExemptRoom(name, EXEMPT_SIZE if self._exempt(name) else None)
        return Room(
            self.ledger,
            self.place,
            name,
            scopes,
            size=size,
            if_absent=if_absent,
            lookup=self.held_by,
            missing=self.inner.surely_missing,
            recover=self.recover,
            parked=self.parked,
            whole=self.whole,
            told=self.told,
            keep=None if if_absent else lambda name: self.keep_at(name, replaced=True),
        )

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

    # -- ways out, and about

    def delete(self, name: str) -> None:
        kept = self.keep_at(name)
        if kept is None:
            self._remove(name, lambda: self.inner.delete(name))
        else:
            self.delete_to(name, kept)

    def delete_to(self, name: str, kept: KernelPath) -> None:
        check_path(name)
        scopes, keeper = self.scopes_of(name), self._required_keeper()
        if not scopes:
            keeper.delete_to(name, kept)
            return
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
                keeper.delete_to(name, kept)  # the sums stay as they are
                return
            self._carry_out(change, lambda: keeper.delete_to(name, kept))

    def quarantine(self, name: str) -> str:
        return self._remove(name, lambda: self.inner.quarantine(name))

    def _remove(self, name: str, work: Callable[[], T]) -> T:
        check_path(name)
        if not self.scopes_of(name):
            return work()
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
                self.ledger.amend(self.place, name, effect.scopes, NOTHING - effect.before)
                return result
            return self._carry_out(change, work)

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

    # -- reading, which needs no account

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        return self.inner.open_reader_nowait(name, offset=offset, size=size)

    def list_sizes(self, name: str) -> Iterator[tuple[str, int]]:
        return self.inner.list_sizes(name)

    def load_nowait(self, name: str, *, offset: int = 0, size: int | None = None) -> Loaded | None:
        return self.inner.load_nowait(name, offset=offset, size=size)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        return self.inner.hash(name, algorithm)

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        return self.inner.gather(sources)

    # -- changes

    def held_by(self, name: str) -> Amount:
        """Return what a name holds in the place now."""
        kernel = self._keeper is not None and is_reserved(name)  # as the ledger wrote it down
        if not kernel and self.inner.surely_missing(name):
            return NOTHING
        info = self.inner.info(KernelPath(name) if kernel else name)
        if not info.exists or info.directory:
            return NOTHING
        return Item.of(info.size, 0 if kernel else self.inner.file_number(name))

    def _numbered(self) -> bool:
        """Whether `held_by` tells the files of items."""
        return self.inner.file_number("") != 0

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


def _offset_of(writer: Writer, parked: Parked) -> int:
    """Return how much of a body the place has: more than at its checkpoint, where a process died
    after it on a place that keeps what has come."""
    try:
        return writer.offset
    except UnsupportedOperation:
        return parked.offset


def _counted(effects: Iterable[Effect]) -> list[Effect]:
    return [effect for effect in effects if effect.scopes]
