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


_OBJECT = re.compile(rb"/((?:[^/%]+/){0,2})(data|index|keys|locks|snapshots)/([0-9a-f]{64})\Z")
_KINDS = {kind.encode(): kind for kind in TYPES}
_MOST_KNOWN = 4096
_known: dict[bytes, str] = {}
"""Repositories by the bytes before the type, as `_parse` has found them for an object: nearly every
request is for another object of the same few."""


def parse(raw: bytes) -> Target | None:
    """Return what the path, as sent and without its query, names; None where nothing can be.

    Raises:
        MalformedPath: the percent-encoding is broken.
    """
    match = _OBJECT.match(raw)
    if match is None:
        return _parse(raw)
    before, kind, blob_id = match.groups()
    repo = _known.get(before)
    if repo is not None:
        return _object(repo, _KINDS[kind], blob_id.decode())
    found = _parse(raw)
    if found is not None and found.kind is Kind.OBJECT:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[before] = found.repo
    return found


def _parse(raw: bytes) -> Target | None:
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
    return _object(repo, kind, name)


def _object(repo: str, kind: str, blob_id: str) -> Target:
    base = f"{repo}/{kind}" if repo else kind
    return Target(Kind.OBJECT, repo, kind, blob_id, object_name(base, kind, blob_id))


def object_name(base: str, kind: str, blob_id: str) -> str:
    """Return where the object lies at the place: packs have a folder for each first byte."""
    return f"{base}/{blob_id[:2]}/{blob_id}" if kind == "data" else f"{base}/{blob_id}"


is_id = _ID.match
"""Whether a name can be an object's: 64 lower-case hex digits. Truth, not a bool: a function around
it would cost a listing as much as the match."""
