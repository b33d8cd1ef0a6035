"""What a request path means: `/[a/[b/]]{config | type/ | type/id}` or a repository itself.

The grammar is rest-server 0.14's. The path is decoded exactly once and then split, so `%2F`
separates like `/`; nothing is ever normalised: what is not in the grammar does not exist.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from backupgw.kvstore.names import InvalidName, check_path

TYPES = ("data", "index", "keys", "locks", "snapshots")
"""The types of object in a repository; `config` is the sixth, one of a kind."""

MAX_FOLDERS = 2
"""Folder levels that a repository may lie below the root."""

_RESERVED = frozenset((*TYPES, "config"))
_ID = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Kind(enum.Enum):
    """What a path names."""

    REPOSITORY = enum.auto()
    CONFIG = enum.auto()
    LISTING = enum.auto()
    OBJECT = enum.auto()


class Target(NamedTuple):
    """A parsed path.

    `repo` is the repository's folder, "" for one at the root; `owner` its first segment; `name`
    the name of the item or folder at the place. `type` is "config" for the config.
    """

    kind: Kind
    repo: str
    type: str
    id: str
    name: str

    @property
    def owner(self) -> str:
        """The first segment of the repository's path: with private repositories, its user."""
        return self.repo.partition("/")[0]


class MalformedPath(ValueError):
    """A path that is no URL path at all: a `%` without two hex digits after it."""


def parse(raw: bytes) -> Target | None:
    """Return what the path, as sent and without its query, names; None where nothing can be.

    Raises:
        MalformedPath: the percent-encoding is broken.
    """
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise MalformedPath("a % in the path is not followed by two hexadecimal digits")
        raw = unquote_to_bytes(raw)
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        return None
    if not path.startswith("/") or "\0" in path:
        return None
    segments = path[1:].split("/")
    for index, segment in enumerate(segments[: MAX_FOLDERS + 1]):
        if segment in _RESERVED:
            return _in_repository(segments[:index], segments[index:])
    if segments[-1] != "":
        return None
    return _repository(segments[:-1])


def _folder(segments: list[str]) -> str | None:
    repo = "/".join(segments)
    if repo:
        try:
            check_path(repo)
        except InvalidName:
            return None
    elif segments:
        return None  # a single empty segment: "//"
    return repo


def _repository(segments: list[str]) -> Target | None:
    repo = _folder(segments) if len(segments) <= MAX_FOLDERS else None
    return None if repo is None else Target(Kind.REPOSITORY, repo, "", "", repo)


def _in_repository(folders: list[str], rest: list[str]) -> Target | None:
    repo = _folder(folders)
    if repo is None:
        return None
    kind = rest[0]
    base = f"{repo}/{kind}" if repo else kind
    if kind == "config":
        return Target(Kind.CONFIG, repo, kind, "", base) if len(rest) == 1 else None
    if len(rest) != 2:
        return None
    name = rest[1]
    if name == "":
        return Target(Kind.LISTING, repo, kind, "", base)
    if not _ID.match(name):
        return None
    return Target(Kind.OBJECT, repo, kind, name, object_name(base, kind, name))


def object_name(base: str, kind: str, blob_id: str) -> str:
    """Return where the object lies at the place: packs have a folder for each first byte."""
    return f"{base}/{blob_id[:2]}/{blob_id}" if kind == "data" else f"{base}/{blob_id}"


def is_id(name: str) -> bool:
    """Whether `name` can be an object's: 64 lower-case hex digits."""
    return _ID.match(name) is not None
