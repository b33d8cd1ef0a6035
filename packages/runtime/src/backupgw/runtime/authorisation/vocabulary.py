"""The words of authorisation: principals, actions and targets.

Protocols have verbs of their own; each service maps them onto these actions, so that one set of
rules and one kind of token works for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import NamedTuple

from backupgw.kvstore.names import InvalidName, check_path

from .patterns import path_matches


class Action(IntFlag):
    """What can be allowed. The upper part are single actions, the lower part names for sets.

    OPEN: read what a client needs before it can add (restic: config, keys, index, snapshots).
    LIST: learn names and sizes. LOAD: read contents. ADD: store what was not there.
    REPLACE: overwrite what is there. DELETE: take away. LOCK: make and remove the protocol's locks.
    CREATE: make a repository or folder. MANAGE: settings of the target: quotas, tokens, jobs.
    """

    OPEN = 1
    LIST = 2
    LOAD = 4
    ADD = 8
    REPLACE = 16
    DELETE = 32
    LOCK = 64
    CREATE = 128
    MANAGE = 256

    READ_ONLY = OPEN | LIST | LOAD
    READ = READ_ONLY | LOCK
    WRITE_ONLY = OPEN | LIST | ADD | LOCK | CREATE
    APPEND = READ | ADD | CREATE
    FULL = APPEND | REPLACE | DELETE
    ADMIN = FULL | MANAGE

    @property
    def word(self) -> str:
        """How settings and commands write it; single actions joined by commas if it has no name."""
        if self.name is not None and "|" not in self.name:
            return self.name.lower().replace("_", "-")
        return ", ".join(single.word for single in self)


WORDS = {member.word: member for member in Action.__members__.values()}
"""Every action and set of actions by its word: `add`, `write-only`."""


def actions_named(words: Iterable[str]) -> Action:
    """Return the actions that words stand for, together.

    Raises:
        ValueError: a word is none of `WORDS`.
    """
    actions = Action(0)
    for word in words:
        if word not in WORDS:
            raise ValueError(f"{word!r} is no action; one of {', '.join(WORDS)}")
        actions |= WORDS[word]
    return actions


class Kind(StrEnum):
    """What a target is."""

    PLACE = "place"
    REPOSITORY = "repository"
    FOLDER = "folder"


class Target(NamedTuple):
    """What an action is done to: `repository:default/alice/laptop`.

    `path` begins with the name of the place.
    """

    kind: Kind
    path: str

    @classmethod
    def repository(cls, place: str, repository: str) -> Target:
        """A repository by its path at a place, "" for the one at the place's root."""
        return cls(Kind.REPOSITORY, f"{place}/{repository}" if repository else place)

    @classmethod
    def folder(cls, place: str, folder: str) -> Target:
        """A folder by its path at a place, "" for the place's root."""
        return cls(Kind.FOLDER, f"{place}/{folder}" if folder else place)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `KIND:PLACE/PATH`.

        Raises:
            ValueError: it is none.
        """
        kind, colon, path = text.partition(":")
        kinds = [kind.value for kind in Kind]
        if not colon or kind not in kinds:
            raise ValueError(
                f"{text!r} is no target; write KIND:PLACE/PATH, the kind one of {', '.join(kinds)}"
            )
        try:
            check_path(path)
        except InvalidName as error:
            raise ValueError(f"{text!r} is no target: {error}") from error
        return cls(Kind(kind), path)

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which targets a rule or token speaks of: `repository:*/{user}/**`; the kind may be `*`."""

    kind: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read `KIND:PLACE/PATH` with `*`, `**` and `{user}`.

        Raises:
            ValueError: it is no pattern.
        """
        kind, colon, path = text.partition(":")
        kinds = ["*", *(kind.value for kind in Kind)]
        if not colon or kind not in kinds:
            raise ValueError(
                f"{text!r} is no pattern of targets; write KIND:PLACE/PATH, such as "
                f"repository:default/{{user}}/**, the kind one of {', '.join(kinds)}"
            )
        for segment in path.split("/"):
            if segment in ("", ".", ".."):
                raise ValueError(f"{text!r} has an empty, . or .. segment and would match nothing")
            if "**" in segment and segment != "**":
                raise ValueError(f"{text!r}: ** must stand alone between slashes")
        return cls(kind, path)

    def matches(self, target: Target, user: str) -> bool:
        """Whether it speaks of `target` when `user` asks."""
        return self.kind in ("*", target.kind) and path_matches(self.path, target.path, user)

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}"


@dataclass(frozen=True)
class Scope:
    """What a token is for: less than, or as much as, what its user may do.

    Attributes:
        actions: those that it can be used for.
        on: the targets, any of them.
    """

    actions: Action
    on: tuple[Pattern, ...]

    @classmethod
    def parse(cls, allow: Iterable[str], on: Iterable[str]) -> Scope:
        """Read words and patterns. Raises ValueError."""
        return cls(actions_named(allow), tuple(Pattern.parse(text) for text in on))

    @functools.cached_property
    def _hash(self) -> int:
        return hash((int(self.actions), self.on))

    def __hash__(self) -> int:
        return self._hash  # asked for at every request


class Principal(NamedTuple):
    """Who asks.

    Attributes:
        user: the user's name; "" for a client that has none.
        scope: the limits of the token that was shown, None where it was no token.
        token: the token's id, for logs; "" where it was no token.
    """

    user: str
    scope: Scope | None = None
    token: str = ""
