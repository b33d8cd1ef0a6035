"""What a verification has found, and how much it has looked at."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backupgw.runtime.events import DamageFound


class Problem(enum.StrEnum):
    """What is wrong with a file."""

    DAMAGED = "damaged"
    """It does not hold what its name says."""
    MISPLACED = "misplaced"
    """It lies where no client looks for it."""
    UNREADABLE = "unreadable"
    """The place could not deliver it, or delivers something else each time."""
    FOREIGN = "foreign"
    """No object, and nobody's business: a note, another program's temporary file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One file with a problem.

    Attributes:
        name: at the place.
        repository: its path, "" at the root.
        what: in a line, for a person.
        size: bytes.
        found: the SHA-256 of what it holds, where it could be read.
        kept: where it was set aside.
    """

    name: str
    repository: str
    problem: Problem
    what: str
    size: int
    found: str | None = None
    kept: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it as JSON's values."""
        return asdict(self)


@dataclass(slots=True)
class Counts:
    """How much was looked at, and what was wrong with how many files."""

    objects: int = 0
    bytes: int = 0
    damaged: int = 0
    misplaced: int = 0
    unreadable: int = 0
    foreign: int = 0

    def add(self, finding: Finding) -> None:
        """Count one more problem."""
        name = finding.problem.value
        setattr(self, name, getattr(self, name) + 1)

    @property
    def harmed(self) -> int:
        """Files that clients cannot have as they stored them."""
        return self.damaged + self.misplaced


def event_of(finding: Finding, place: str) -> DamageFound | None:
    """Return the event that a finding is worth; None where clients have what they stored.

    Args:
        place: what the settings call the place.
    """
    from backupgw.runtime.events import DamageFound

    if finding.problem is Problem.FOREIGN:
        return None
    problem = f"{finding.problem.value}: {finding.what}"
    return DamageFound(
        place=place, name=finding.name, problem=problem, repository=finding.repository
    )
