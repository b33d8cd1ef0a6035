"""Limits on what scopes may hold, kept by a ledger, in front of any backend.

A body is reserved in steps as it arrives, so a writer that lies or dawdles holds little more than
what it has sent. Just before an item gets or loses its name, within a lock on that name, the layer
looks at what the name holds, records the intent, changes the place and settles; of a small new item
on a local disk it records the file that is to have the name, and does not look. What is counted is
what names hold: replacing an item costs the difference, and deleting it, or setting it aside as
damaged, frees what it held.

Reading goes through untouched, native hash and concatenation included. Every way in which an item
can appear, change its size or vanish is accounted: writers, resumed ones too, by way of them store
and defrag, and what `quota_changes` does with items that are there: delete, move, copy, quarantine.
Around a trash, what is deleted or replaced only moves to another name and stays counted, in the
same scopes, until the trash lets go of it. A limit set here holds only for who comes through here;
`reconcile` corrects the accounts after somebody did not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from ..backends.base import Backend, Capabilities, Loaded, Quota, Reader, Writer
from ..backends.errors import ObjectNotFound, UnsupportedOperation
from ..backends.gated import GatedWriter
from ..ledger import Ledger, Report
from ..names import check_path
from .base import changed
from .quota_changes import EXEMPT_SIZE, NAMES_REMEMBERED, CountedChanges
from .quota_gate import NewItemGate
from .quota_writer import UNRESERVED, ExemptRoom, Parked, QuotaWriter, Room

logger = logging.getLogger(__name__)

_FOLDERS_REMEMBERED = 10_000
"""Folders of which it is known how their items count."""


class QuotaLayer(CountedChanges):
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
        super().__init__(inner, ledger, scopes, place=place, exempt=exempt)
        self.parked = parked
        self.whole = whole
        self.told = told
        self._alike = alike
        self._gates: dict[str, NewItemGate] = {}
        self._gate_of = lru_cache(NAMES_REMEMBERED)(self._new_gate)  # one for all its folders
        self._gated: type[Writer] | None = None
        """The kind of writer that took a gate."""
        self._total = total

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

    def reconcile(self, *, only_if_needed: bool = False) -> Report:
        """Count the place anew while it is in use; return every correction.

        Raises:
            BackendError: the place could not be listed; nothing was corrected.
        """
        recovered = self.recover()
        report = self.ledger.reconcile(
            self.place,
            self.list_all,
            self.scopes_of,
            lookup=self.held_by,
            only_if_needed=only_if_needed,
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
            numbered=self.inner.file_number("") != 0,  # `held_by` tells the files of items
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


def _offset_of(writer: Writer, parked: Parked) -> int:
    """Return how much of a body the place has: more than at its checkpoint, where a process died
    after it on a place that keeps what has come."""
    try:
        return writer.offset
    except UnsupportedOperation:
        return parked.offset
