"""What a copy is told and what it tells; see `copying`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .backends.base import Backend


class Compare(StrEnum):
    """When an item at the target counts as copied."""

    AUTO = "auto"
    """Same size, and same hash where both places know one without reading; where they do not, the
    target's must be younger than the source's."""
    SIZE = "size"
    """Same size."""
    HASH = "hash"
    """Same size and same SHA-256, read at both places where need be."""


class Outcome(StrEnum):
    """What became of an item."""

    COPIED = "copied"
    PRESENT = "present"
    GONE = "gone"
    """It vanished from the source after it was listed."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Copied:
    """One item, or one folder that failed. `size` in bytes, `message` why it failed."""

    name: str
    outcome: Outcome
    size: int
    message: str = ""


@dataclass(slots=True)
class Totals:
    """Items by what became of them, and their bytes. `gave_up`: why the rest was not tried."""

    copied: int = 0
    copied_bytes: int = 0
    present: int = 0
    present_bytes: int = 0
    gone: int = 0
    failed: int = 0
    gave_up: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a copy: an open place and the name of an item or folder in it, "" for all."""

    place: Backend
    name: str = ""
