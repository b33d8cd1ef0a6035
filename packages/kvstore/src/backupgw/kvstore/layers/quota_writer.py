"""A body under quota: the room that its writer takes, and the writer."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..backends.base import Writer
from ..backends.errors import (
    BackendError,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
    QuotaExceeded,
    UnsupportedOperation,
)
from ..ledger import (
    NOTHING,
    Amount,
    Change,
    Effect,
    Item,
    Ledger,
    LimitExceeded,
    NewItem,
    Report,
    Reservation,
    ReservationEnded,
)
from ..names import KernelPath, check_path
from .trash_keeper import KeepingWriter

logger = logging.getLogger(__name__)

T = TypeVar("T")

UNRESERVED = 256 << 10
"""Bytes of a body that are reserved only with its intent: what is small costs the ledger a
single transaction, and a refusal comes before anything is visible all the same."""

STEP = 4 << 20
"""Bytes by which a reservation grows beyond what has come, far from any limit."""

_HAPPENED_NOT = (ObjectExists, ContentMismatch, UnsupportedOperation)


def carry_out(
    ledger: Ledger, change: Change, work: Callable[[], T], lookup: Callable[[str], Amount]
) -> T:
    """Do what was intended and tell the ledger how it ended; within `changing`."""
    try:
        result = work()
    except BaseException as error:
        did_not_end_well(ledger, change, error, lookup)
        raise
    ledger.settle(change)
    return result


def did_not_end_well(
    ledger: Ledger,
    change: Change,
    error: BaseException,
    lookup: Callable[[str], Amount],
    file: int = 0,
) -> None:
    """Tell the ledger how a change ended that raised an error.

    Args:
        file: number of the file that was to be the one new item; 0 where its name was free.
    """
    if isinstance(error, _HAPPENED_NOT):
        ledger.release(change)
        return
    # A broken connection, say: it may have happened.
    try:
        found = [lookup(effect.name) for effect in change.effects]
    except BackendError as unknown:
        logger.warning("%s: left for recover to settle: %s", change.effects[0].name, unknown)
    else:
        if file and isinstance(found[0], Item) and found[0].file not in (0, file):
            ledger.release(change)  # that one was there before
        else:
            ledger.resolve(change, found)


def change_of(item: NewItem, place: str, name: str, scopes: tuple[str, ...], size: int) -> Change:
    """Return what was intended for a new item."""
    after = Amount(size, 1)
    effect = Effect(name, scopes, NOTHING, after)
    return Change(place, (item.generation,), (effect,), (dict.fromkeys(scopes, after),))


@dataclass(frozen=True, slots=True)
class Parked:
    """A checkpointed write: the inner backend's token, and the room that is kept for it.

    Attributes:
        token: empty where the place has nothing yet. It is good for as long as its room is there.
        later: made by `reserve_writer`: it is good without its room, too.
    """

    token: str
    name: str
    size: int | None
    if_absent: bool
    offset: int
    number: int | None
    later: bool = False

    def to_token(self) -> str:
        parts = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(parts)

    @classmethod
    def from_token(cls, token: str) -> Parked:
        """Raises ValueError unless `to_token` made it."""
        try:
            parked = cls(**json.loads(token))
            check_path(parked.name)
        except (ValueError, TypeError) as error:
            raise ValueError("not a token of a checkpoint") from error
        return parked


class AnyRoom(Protocol):
    """What a writer asks for room."""

    name: str
    size: int | None
    if_absent: bool

    @property
    def unasked(self) -> int:
        """Bytes that may be received altogether before `cover` has to be asked."""

    def announce(self, size: int) -> None:
        """Refuse a body early that has no room as it is announced."""

    def cover(self, received: int) -> None:
        """Have room for what has been received altogether, or raise QuotaExceeded."""

    def park(self, received: int) -> int | None:
        """Keep the room for a checkpoint; returns the number under which it is kept, or will be
        once that is written down."""

    def leave(self) -> None:
        """The checkpoint is made: what was parked is no longer this writer's."""

    def commit(
        self, received: int, work: Callable[[KernelPath | None], None], kept: KernelPath | None
    ) -> None:
        """Give the item its name by `work`, accounted; what it replaces is kept where `work` is
        told, which is `kept` where that was chosen already."""

    def give_back(self) -> None:
        """Nothing comes of it. Idempotent."""


class ExemptRoom:
    """Of a name that is not counted; `most` bytes, None without limit."""

    def __init__(self, name: str, most: int | None) -> None:
        self.name = name
        self.size: int | None = None
        self.if_absent = False
        self.unasked = 0
        self._most = most

    def announce(self, size: int) -> None:
        self.cover(size)

    def cover(self, received: int) -> None:
        if self._most is not None and received > self._most:
            raise QuotaExceeded(
                f"{self.name}: exempt from the quota, and so at most {self._most} bytes long"
            )

    def take_over(self, parked: Parked) -> None:
        self.cover(parked.offset)

    def park(self, received: int) -> None:  # noqa: ARG002 - the signature is AnyRoom's
        return None

    def leave(self) -> None:
        return None

    def commit(
        self,
        received: int,  # noqa: ARG002
        work: Callable[[KernelPath | None], None],
        kept: KernelPath | None,
    ) -> None:
        work(kept)

    def give_back(self) -> None:
        return None


class Room:
    """The room of one body, in all scopes of its name.

    Args:
        lookup: tells what a name holds now.
        missing: tells that it holds nothing for sure.
        recover: settles what crashed writers left; asked before a refusal is final.
        parked: seconds that the room of a checkpoint is kept.
        whole: hold all that the body is announced to have from the beginning.
        told: what a checkpoint keeps is parked by whoever has its token, and not here.
        keep: tells where what a name holds is kept when it is replaced; None where it is not.
    """

    def __init__(
        self,
        ledger: Ledger,
        place: str,
        name: str,
        scopes: tuple[str, ...],
        *,
        size: int | None,
        if_absent: bool,
        lookup: Callable[[str], Amount],
        missing: Callable[[str], bool],
        recover: Callable[[], Report],
        parked: float,
        whole: bool = False,
        told: bool = False,
        keep: Callable[[str], KernelPath | None] | None = None,
    ) -> None:
        self.name = name
        self.size = size
        self.if_absent = if_absent
        self._keep = keep
        self._ledger = ledger
        self._place = place
        self._scopes = scopes
        self._lookup = lookup
        self._missing = missing
        self._recover = recover
        self._parked = parked
        self._told = told
        self._least = size or 0 if whole else 0
        self._reservation: Reservation | None = None
        self._kept_room: int | None = None
        """The number of room that was kept for later and is not taken over yet."""
        self._replaced = NOTHING
        self._renew_at = 0.0

    @property
    def unasked(self) -> int:
        return UNRESERVED if self._reservation is None else 0

    def announce(self, size: int) -> None:
        if self._least:
            self._reserve(0)
        elif size > UNRESERVED:
            self._reserve(0, fitting=size)

    def cover(self, received: int) -> None:
        self._take_kept_room(received)
        if self._reservation is None:
            if received > UNRESERVED:
                self._reserve(received)
        elif (
            received - self._replaced.bytes > self._reservation.held.bytes
            or time.monotonic() > self._renew_at
        ):
            self._reserve(received)

    def _reserve(self, received: int, fitting: int | None = None) -> None:
        try:
            self._hold(received, fitting)
        except LimitExceeded:
            # What would be replaced makes room; it is looked up only now, since that may cost a
            # round trip. It may be gone by the time of the intent, which decides.
            makes_room = not self.if_absent and self._kept() is None
            replaced = self._lookup(self.name) if makes_room else NOTHING
            if replaced == self._replaced and not self._recover().repairs:
                raise
            self._replaced = replaced
            self._hold(received, fitting)

    def _hold(self, received: int, fitting: int | None) -> None:
        amount = self._due(received)
        step = received + STEP
        wanted = self._due(step if self.size is None else max(received, min(step, self.size)))
        if self._reservation is not None:
            self._ledger.grow(self._reservation, amount, wanted=wanted)
        else:
            self._reservation = self._ledger.reserve(
                self._place,
                self._scopes,
                amount,
                wanted=wanted,
                fitting=None if fitting is None else self._due(fitting),
            )
        self._renew_at = time.monotonic() + self._ledger.lease / 3

    def _due(self, received: int) -> Amount:
        return (Amount(max(received, self._least), 1) - self._replaced).at_least_nothing()

    def take_over(self, parked: Parked) -> None:
        """Carry on with the room of a checkpoint.

        Raises:
            ObjectNotFound: the place has nothing of it, and the room was given back or used.
        """
        if parked.number is None:
            self.cover(parked.offset)
        elif parked.later:
            # Its intent takes the room over, as soon as all has come; where it was given back or
            # used meanwhile, that takes what is free.
            self._kept_room = parked.number
        else:
            self._adopt(parked.number, parked.offset, anew=bool(parked.token))

    def _adopt(self, number: int, received: int, *, anew: bool) -> None:
        try:
            self._reservation = self._ledger.adopt(
                number, self._place, self._scopes, self._due(received), anew=anew
            )
        except ReservationEnded as error:
            raise ObjectNotFound(f"checkpoint of {self.name} is gone") from error
        self._renew_at = time.monotonic() + self._ledger.lease / 3

    def _take_kept_room(self, received: int) -> None:
        number, self._kept_room = self._kept_room, None
        if number is not None:
            with contextlib.suppress(ObjectNotFound):
                self._adopt(number, received, anew=False)

    def keep_for_later(self, seconds: float | None) -> int:
        """Reserve room for a body that somebody is going to send; returns its number."""
        due, lease = Amount(self.size or 0, 1), self._parked if seconds is None else seconds
        try:
            held = self._ledger.reserve(self._place, self._scopes, due, parked=lease)
        except LimitExceeded:
            if not self._recover().repairs:
                raise
            held = self._ledger.reserve(self._place, self._scopes, due, parked=lease)
        return held.number

    def park(self, received: int) -> int | None:
        self._take_kept_room(received)
        due = self._due(received)
        if self._reservation is None:
            parked = None if self._told else self._parked
            self._reservation = self._ledger.reserve(self._place, self._scopes, due, parked=parked)
            return self._reservation.number
        if self._reservation.held != due or (self._told and time.monotonic() > self._renew_at):
            self._ledger.grow(self._reservation, due)
        if not self._told:
            self._ledger.park(self._reservation, self._parked)
        return self._reservation.number

    def leave(self) -> None:
        self._reservation = None

    def _kept(self) -> KernelPath | None:
        return None if self._keep is None else self._keep(self.name)

    def commit(
        self, received: int, work: Callable[[KernelPath | None], None], kept: KernelPath | None
    ) -> None:
        unreserved = self._reservation is None and self._kept_room is None
        if self.if_absent and kept is None and unreserved:
            item = self._ledger.begin_new(
                self._place, self.name, self._scopes, received, self._missing
            )
            if item is not None:
                self._add(item, received, work)
                return
        kept = kept or self._kept()
        with self._ledger.changing(self._place, [self.name] if kept is None else [self.name, kept]):
            before = self._lookup(self.name)
            if self.if_absent and before:
                raise ObjectExists(f"{self.name} exists")
            effects = [Effect(self.name, self._scopes, before, Amount(received, 1))]
            if kept is not None and before:
                # A crash may leave both names holding something, or one of them.
                effects.append(Effect(kept, self._scopes, NOTHING, before))
            try:
                change = self._intend(effects)
            except LimitExceeded:
                if not self._recover().repairs:
                    raise
                change = self._intend(effects)
            self._reservation = self._kept_room = None  # the change's from now on
            carry_out(self._ledger, change, lambda: work(kept), self._lookup)

    def _add(self, item: NewItem, received: int, work: Callable[[KernelPath | None], None]) -> None:
        """Give a new item its name, whose intent is on record."""
        settled = False
        try:
            work(None)
            settled = True
        except BaseException as error:
            change = change_of(item, self._place, self.name, self._scopes, received)
            did_not_end_well(self._ledger, change, error, self._lookup)
            raise
        finally:
            self._ledger.end_new(item, settled=settled)

    def _intend(self, effects: Sequence[Effect]) -> Change:
        room = self._reservation if self._kept_room is None else self._kept_room
        return self._ledger.intend(self._place, effects, room, atomic=len(effects) == 1)

    def give_back(self) -> None:
        room = self._reservation if self._kept_room is None else self._kept_room
        self._reservation = self._kept_room = None
        if room is not None:
            self._ledger.release(room)


def _is_small(size: int | None) -> bool:
    return size is not None and size <= UNRESERVED


class QuotaWriter(KeepingWriter):
    """Passes a body on to the inner writer, with room for it.

    Args:
        anew: name, size and if_absent are all that the inner writer was opened with, so that it can
            as well be opened later.
    """

    def __init__(
        self, writer: Writer, room: AnyRoom, *, offset: int = 0, anew: bool = False
    ) -> None:
        self._anew = anew
        self._writer = writer
        self._room = room
        self._received = offset
        self._unasked = room.unasked

    @property
    def offset(self) -> int:
        return self._received

    def write(self, data: bytes | bytearray | memoryview) -> None:
        received = self._received + memoryview(data).nbytes
        if received > self._unasked:
            self._unasked = 0  # from now on there is a lease to renew
            self._room.cover(received)
        self._writer.write(data)
        self._received = received

    def check(self) -> None:
        self._writer.check()

    def commit(self) -> None:
        try:
            try:
                self._room.commit(self._received, self._name_it, self.kept)
            except ObjectExists:
                self._writer.check()  # the room looks at the name and not at the value
                raise
        except ObjectExists:
            raise  # still whole: once that item was moved out of the way, commit is called again
        except BaseException:
            self.abort()
            raise

    def _name_it(self, kept: KernelPath | None) -> None:
        if kept is not None and isinstance(self._writer, KeepingWriter):
            self._writer.kept = kept
        self._writer.commit()

    def abort(self) -> None:
        try:
            self._writer.abort()
        finally:
            self._room.give_back()

    def checkpoint(self) -> str:
        room = self._room
        number = room.park(self._received)
        if self._anew and not self._received and number is not None and _is_small(room.size):
            # There is nothing yet that the place would have to keep: only room.
            self._writer.abort()
            token = ""
        else:
            token = self._writer.checkpoint()
        room.leave()
        return Parked(
            token, room.name, room.size, room.if_absent, self._received, number
        ).to_token()
