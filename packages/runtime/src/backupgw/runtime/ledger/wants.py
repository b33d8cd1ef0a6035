"""What the steps of a transaction are going to read, fetched at one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from psycopg import Connection, Cursor

from backupgw.kvstore.ledger.held import NO_NEEDS, Needs
from backupgw.kvstore.ledger.turns import Step

from .books import READ_ACCOUNTS, READ_HELD, READ_NAMED, Rows
from .claims import FOLDER, NAME, Claims
from .link import Row, key_of

T = TypeVar("T")


class Fenced(Step[T]):
    """A step that is refused unless the claims of the thread that asks for it are still there."""

    __slots__ = ("claims",)

    def __init__(
        self,
        work: Callable[[Any], T],
        locks: Claims,
        *,
        keep: bool = False,
        needs: Needs = NO_NEEDS,
    ) -> None:
        super().__init__(work, keep=keep, needs=needs)
        self.claims = _relied_on(needs, locks)


def claims_of(step: Step[Any]) -> Sequence[tuple[bytes, int]]:
    """Return the claims that a step relies on, as (key, holder)."""
    return step.claims if isinstance(step, Fenced) else ()


@dataclass(slots=True)
class Wants:
    """What to ask for; `claims` are the keys of those that steps rely on."""

    scopes: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    claims: list[bytes] = field(default_factory=list)
    durable: bool = False

    @classmethod
    def of(cls, steps: Sequence[Step[Any]], numbers: Iterable[int]) -> Wants:
        """Return what all steps need, and rows by their numbers besides."""
        wants = cls()
        all_scopes: set[str] = set()
        all_numbers = set(numbers)
        for step in steps:
            needs = step.needs
            all_scopes.update(needs.scopes)
            all_numbers.update(needs.numbers)
            for effect in needs.effects:
                all_scopes.update(effect.scopes)
                if needs.claimed:
                    wants.names.append(key_of(needs.place, effect.name))
            wants.claims += [key for key, _ in claims_of(step)]
            wants.durable = wants.durable or needs.durable
        wants.scopes, wants.numbers = list(all_scopes), list(all_numbers)
        return wants

    def ask(self, db: Connection[Row]) -> Answers:
        """Ask, within a pipeline."""
        claims = "SELECT key, holder FROM ledger_claims WHERE key = ANY(%s)"
        return Answers(
            self,
            db.execute(READ_ACCOUNTS, (self.scopes,)) if self.scopes else None,
            db.execute(READ_HELD, (self.numbers,)) if self.numbers else None,
            db.execute(READ_NAMED, (self.names,)) if self.names else None,
            db.execute(claims, (self.claims,)) if self.claims else None,
        )


@dataclass(slots=True)
class Answers:
    """What came back, after the pipeline."""

    wants: Wants
    accounts: Cursor[Row] | None
    held: Cursor[Row] | None
    named: Cursor[Row] | None
    claims: Cursor[Row] | None

    def tell(self, books: Rows) -> dict[bytes, int]:
        """Let the books know; returns the holders of claims."""
        if self.accounts is not None:
            books.fetched_accounts(self.wants.scopes, self.accounts.fetchall())
        if self.held is not None:
            books.fetched_held(self.wants.numbers, self.held.fetchall())
        if self.named is not None:
            books.fetched_named(self.wants.names, self.named.fetchall())
        return {} if self.claims is None else dict(self.claims.fetchall())


def _relied_on(needs: Needs, locks: Claims) -> list[tuple[bytes, int]]:
    if not needs.claimed:
        return []
    names = [*needs.names, *(effect.name for effect in needs.effects)]
    claims = [locks.holder(NAME, needs.place, name) for name in names]
    if needs.folder is not None:
        claims.append(locks.holder(FOLDER, needs.place, needs.folder))
    return [claim for claim in claims if claim is not None]
