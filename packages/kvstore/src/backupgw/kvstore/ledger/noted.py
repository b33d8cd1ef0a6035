"""Names that change while a count lists a folder above them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import LedgerError


@dataclass(frozen=True, slots=True)
class Noted:
    """What has changed, or is about to, beneath a folder.

    Attributes:
        names: directly in the folder.
        folders: those directly in it beneath which something changed.
    """

    names: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int]]) -> Noted:
        """Return what rows of `in_folder` say."""
        noted = cls()
        for name, beneath in rows:
            (noted.folders if beneath else noted.names).add(name)
        return noted


def in_folder(folder: str, name: str) -> tuple[str, int] | None:
    """Return what is directly in a folder where a name changes: the name itself and 0, or the
    folder that the name is beneath and 1; None where it is elsewhere."""
    if not folder:
        start = 0
    elif name.startswith(f"{folder}/"):
        start = len(folder) + 1
    else:
        return None
    end = name.find("/", start)
    return (name, 0) if end < 0 else (name[:end], 1)


def given_up(place: str) -> LedgerError:
    """Return the error of who counts a place and is not on record as who does."""
    return LedgerError(
        f"the count of {place!r} is void: this process was taken for dead, another one counts, or "
        "something was told too late that it may have seen as it was before",
        retryable=True,
    )
