"""The records of the ledger: amounts, limits, reservations, changes, reports."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Amount(NamedTuple):
    """So many bytes in so many objects; differences may be negative."""

    bytes: int = 0
    objects: int = 0

    def __add__(self, other: Amount) -> Amount:  # type: ignore[override]  # sums, not sequences
        return Amount(self[0] + other[0], self[1] + other[1])

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self[0] - other[0], self[1] - other[1])

    def __bool__(self) -> bool:
        return self[0] != 0 or self[1] != 0

    def at_least_nothing(self) -> Amount:
        """Return this amount with what is negative replaced by 0."""
        if self[0] >= 0 and self[1] >= 0:
            return self
        return Amount(max(0, self[0]), max(0, self[1]))


NOTHING = Amount()


class Item(Amount):
    """What a name holds, and by which file of this machine.

    Attributes:
        file: the file's number, 0 where nobody can tell.
    """

    file: int = 0

    @classmethod
    def of(cls, size: int, file: int) -> Item:
        """Return one item of `size` bytes."""
        item = cls(size, 1)
        item.file = file
        return item


class Measure(enum.StrEnum):
    """What a limit counts."""

    BYTES = "bytes"
    OBJECTS = "objects"


@dataclass(frozen=True, slots=True)
class Limit:
    """What a scope may hold; None is without limit.

    A hard limit refuses; a soft limit raises an alarm and refuses nothing.
    """

    hard_bytes: int | None = None
    hard_objects: int | None = None
    soft_bytes: int | None = None
    soft_objects: int | None = None

    def __post_init__(self) -> None:
        for value in (self.hard_bytes, self.hard_objects, self.soft_bytes, self.soft_objects):
            if value is not None and value < 0:
                raise ValueError(f"a limit is not negative: {value}")

    def hard(self, measure: Measure) -> int | None:
        return self.hard_bytes if measure is Measure.BYTES else self.hard_objects

    def soft(self, measure: Measure) -> int | None:
        return self.soft_bytes if measure is Measure.BYTES else self.soft_objects


UNLIMITED = Limit()


@dataclass(frozen=True, slots=True)
class Usage:
    """The account of a scope at one moment."""

    scope: str
    limit: Limit
    used: Amount
    reserved: Amount


@dataclass(slots=True)
class Reservation:
    """Room that a writer holds; kept by its owner, changed by the ledger only.

    Attributes:
        number: unique in the ledger for ever.
        scopes: the scopes that it counts towards.
        held: the amount held in each of them.
        deadline: seconds since the epoch after which it is given back unless it was renewed.
        portable: it survives the process, and its deadline alone ends it.
    """

    number: int
    place: str
    scopes: tuple[str, ...]
    held: Amount
    deadline: float
    portable: bool = False


class Effect(NamedTuple):
    """What a change does to one name: from what it holds to what it will hold.

    `before` and `after` are NOTHING where there is no item.
    """

    name: str
    scopes: tuple[str, ...]
    before: Amount
    after: Amount


class Change(NamedTuple):
    """An intent: effects that are about to happen in a place, as one.

    `generation` is unique in the ledger for ever: a name and a generation together say which
    writing or removal of the name is meant. `numbers` are the generations of the effects, in
    their order; the first is the change's own. `held` is what each effect holds in which scopes.
    """

    place: str
    numbers: tuple[int, ...]
    effects: tuple[Effect, ...]
    held: tuple[Mapping[str, Amount], ...]

    @property
    def generation(self) -> int:
        return self.numbers[0]


class Holder(Protocol):
    """Has names held."""

    def let_go(self, held: int, /) -> None:
        """Give up what `held` stands for."""


class NewItem(NamedTuple):
    """What `begin_new` began: the generation of its intent, and who holds its name by what."""

    generation: int
    holder: Holder
    held: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """A scope has reached a level, or (`cleared`) has fallen well below it again.

    `level` is the fraction of the hard limit, or None for the soft limit; `value` is the number of
    bytes or objects where it lies.
    """

    scope: str
    measure: Measure
    level: float | None
    value: int
    used: int
    cleared: bool = False


@dataclass(frozen=True, slots=True)
class Correction:
    """An account that was wrong: the ledger had `recorded`, the place holds `found`."""

    scope: str
    recorded: Amount
    found: Amount


@dataclass(frozen=True, slots=True)
class Repair:
    """A change whose end nobody recorded, settled by what its name holds now."""

    name: str
    generation: int
    before: Amount
    intended: Amount
    found: Amount


@dataclass(slots=True)
class Report:
    """What `recover` and `reconcile` found and corrected.

    `counted` is what the place holds within quota scopes; NOTHING after `recover`, which counts
    nothing.
    """

    place: str
    counted: Amount = NOTHING
    folders: int = 0
    corrections: list[Correction] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    released: int = 0
    """Reservations of dead writers that were given back."""
