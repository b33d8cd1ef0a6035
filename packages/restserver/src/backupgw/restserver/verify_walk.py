"""What there is to verify in a place, in an order that a later run can go on in.

All types but locks, which come and go, and the config, whose name is no hash. Keys, snapshots,
index and data are named by the SHA-256 of what they hold, so they can be verified without any
password.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import ObjectNotFound

from . import survey
from .paths import TYPES, is_id

KINDS = tuple(kind for kind in TYPES if kind != "locks")
_FIRST_BYTE = re.compile(r"[0-9a-f]{2}\Z", re.ASCII)


class Standing(enum.Enum):
    """Whether a file is where clients look for one of its name."""

    OBJECT = enum.auto()
    MISPLACED = enum.auto()
    """Its name is an object's, and no client will find it there."""
    FOREIGN = enum.auto()
    """Its name is none that the protocol knows."""


class Position(NamedTuple):
    """Where a file lies, such that a run goes through all of them in the order of their positions.

    `repository` are the segments of its path; `part` is the folder in it and `name` the file's.
    """

    repository: tuple[str, ...]
    part: str
    name: str

    @property
    def path(self) -> str:
        """The file's name at the place."""
        parts = (*self.repository, *self.part.split("/"), self.name)
        return "/".join(part for part in parts if part)


class Candidate(NamedTuple):
    """A file to look at."""

    position: Position
    size: int
    standing: Standing

    @property
    def repository(self) -> str:
        """The path of its repository, "" at the root."""
        return "/".join(self.position.repository)


def candidates(
    place: Backend, selected: Callable[[str], bool], after: Position | None = None
) -> Iterator[Candidate]:
    """Yield the files of the selected repositories in the order of their positions.

    Memory grows with the entries of one folder.

    Args:
        selected: whether the repository of a path is wanted.
        after: begin behind it.

    Raises:
        BackendError: the place cannot be listed.
    """
    for path in survey.find(place):
        repo = tuple(path.split("/")) if path else ()
        if not selected(path) or (after is not None and repo < after.repository):
            continue
        for part, first_byte in _parts(place, path):
            if after is not None and (repo, part) < after[:2]:
                continue
            for item in _sorted(place, f"{path}/{part}".strip("/")):
                position = Position(repo, part, item.name)
                if after is not None and position <= after:
                    continue
                standing = _standing(item, part, first_byte)
                if standing is not None:
                    yield Candidate(position, item.size, standing)


def _parts(place: Backend, path: str) -> Iterator[tuple[str, str | None]]:
    """Yield the folders of a repository, sorted, each with the byte that its packs begin with."""
    yield "", None
    for kind in KINDS:
        yield kind, None
        if kind == "data":
            for item in _sorted(place, f"{path}/data".lstrip("/")):
                if item.directory:
                    yield f"data/{item.name}", item.name


def _standing(item: ItemInfo, part: str, first_byte: str | None) -> Standing | None:
    """Return what a file is, None for what is no matter of this folder."""
    if part == "":
        # Beside the folders of the repository at the root there may be anything.
        return Standing.MISPLACED if is_id(item.name) and not item.directory else None
    if item.directory:
        known = part == "data" and _FIRST_BYTE.match(item.name)
        return None if known else Standing.FOREIGN
    if not is_id(item.name):
        return Standing.FOREIGN
    if part == "data" or (first_byte is not None and not item.name.startswith(first_byte)):
        return Standing.MISPLACED
    if first_byte is not None and not _FIRST_BYTE.match(first_byte):
        return Standing.MISPLACED
    return Standing.OBJECT


def _sorted(place: Backend, folder: str) -> list[ItemInfo]:
    try:
        return sorted(place.list(folder), key=lambda item: item.name)
    except ObjectNotFound:
        return []  # never made, or removed meanwhile
