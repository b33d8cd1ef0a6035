"""Which accounts an object counts towards, and what each may hold.

The server has one account, every user and every repository has one. Whose a repository is, is said
by its path alone: the first segment names its owner, as with private repositories. So it stays the
same whoever uploads, whatever is deleted and made again, on every gateway and at every count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from backupgw.kvstore.ledger import Limit
from backupgw.runtime.authorisation.patterns import matches, path_matches

from .paths import MAX_FOLDERS, TYPES

SERVER = "server"
_USER = "user:"
_REPOSITORY = "repository:"
_NOTHING = Limit()
_PARTS = frozenset((*TYPES, "config"))


def repository_of(name: str) -> str | None:
    """Return the repository that an item of the place belongs to, None for what is in none."""
    segments = name.split("/", MAX_FOLDERS + 1)
    for index, segment in enumerate(segments[: MAX_FOLDERS + 1]):
        if segment in _PARTS:
            return "/".join(segments[:index])
    return None


def server_alone(_name: str) -> tuple[str, ...]:
    """Return the accounts where there is one for all."""
    return (SERVER,)


def all_accounts(name: str) -> tuple[str, ...]:
    """Return the accounts of server, owner and repository that an item counts towards."""
    repo = repository_of(name)
    return (SERVER,) if repo is None else _accounts(repo)


@lru_cache(maxsize=4096)
def _accounts(repo: str) -> tuple[str, ...]:
    if not repo:
        return SERVER, f"{_REPOSITORY}/"
    return SERVER, f"{_USER}{repo.partition('/')[0]}", f"{_REPOSITORY}{repo}"


@dataclass(frozen=True)
class Limits:
    """What the accounts may hold.

    Attributes:
        server: everything together.
        users: patterns of names with a limit; the first that fits is a user's.
        repositories: patterns of paths with a limit; the first that fits is a repository's.
    """

    server: Limit = _NOTHING
    users: Sequence[tuple[tuple[str, ...], Limit]] = ()
    repositories: Sequence[tuple[tuple[str, ...], Limit]] = ()

    @property
    def divided(self) -> bool:
        """Whether users and repositories need accounts of their own."""
        return bool(self.users or self.repositories)

    def __bool__(self) -> bool:
        return self.divided or self.server != _NOTHING

    def of(self, account: str) -> Limit:
        """Return what an account may hold; no limit for one that nothing is said of."""
        if account == SERVER:
            return self.server
        if account.startswith(_USER):
            user = account.removeprefix(_USER)
            return _first(
                limit
                for patterns, limit in self.users
                if any(matches(pattern, user) for pattern in patterns)
            )
        # The repository at the root, "/", is meant by ** and * alone.
        path = account.removeprefix(_REPOSITORY)
        return _first(
            limit
            for patterns, limit in self.repositories
            if any(path_matches(pattern, path.strip("/"), "") for pattern in patterns)
        )


def _first(limits: Iterator[Limit]) -> Limit:
    return next(limits, _NOTHING)
