"""What a store of tokens does. The database's is in `database`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .records import Token


class TokenStoreError(Exception):
    """The store cannot be read or written; nothing is known of any token (answer 503, not 401)."""


class TokenStore(Protocol):
    """Safe to use from any thread and any process. Every method may raise TokenStoreError.

    What `add`, `revoke` and `spend` have done outlasts a power loss.
    """

    def add(self, token: Token) -> None:
        """Keep a new token. Those that ended long ago are forgotten on the way."""

    def find(self, token_id: str) -> Token | None:
        """Return a token by its id."""

    def tokens(self, user: str | None = None) -> list[Token]:
        """Return all tokens, or a user's, oldest first."""

    def revoke(self, token_id: str, now: float) -> Token | None:
        """End a token for good; return it, None if there is none. Doing it twice changes nothing:
        the time stays that of the first."""

    def note_used(self, times: Mapping[str, float]) -> None:
        """Note when tokens, by id, were used; an earlier time than the known one is dropped."""

    def generation(self) -> int:
        """Return a number that changes whenever what was known of a token may be wrong."""

    def spend(self, issuer: str, unique: str, until: float, now: float) -> bool:
        """Use up the single-use id of a signed token; remembered until `until`.

        Returns:
            True for exactly one caller among all processes.
        """

    def close(self) -> None:
        """Let go of what is open."""
