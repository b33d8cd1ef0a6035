"""A bearer token: how it looks, what is kept of it, and when it is good.

    bgw_1f0c9a7be4d2_Zk3…        prefix, id (public), secret: 256 random bits

Only the SHA-256 of the whole is kept. A slow hash, as for passwords, would add nothing: there is
nothing to guess among 2**256.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from ..authorisation.vocabulary import Principal, Scope

PREFIX = "bgw_"
"""By it, programs that look for leaked secrets know a token."""

_FORM = re.compile(r"bgw_([0-9a-f]{12})_[A-Za-z0-9_-]{43}\Z", re.ASCII)


class TokenRefused(Exception):
    """A token is not good; `str()` says why, for the log and never for the client."""


@dataclass(frozen=True)
class Token:
    """What the store knows of a token.

    Attributes:
        id: the public part, for lists, logs and `revoke`.
        digest: SHA-256 of the whole token.
        user: whom it acts for.
        name: what its maker calls it.
        scope: what it is for.
        created: seconds since 1970, as all times here.
        expires: when it ends by itself, None for never.
        revoked: when it was ended, None if it was not.
        used: when it was used last, to about a minute; None for never.
    """

    id: str
    digest: bytes
    user: str
    name: str
    scope: Scope
    created: float
    expires: float | None = None
    revoked: float | None = None
    used: float | None = None

    @property
    def principal(self) -> Principal:
        """Who asks when this token is shown."""
        return Principal(self.user, self.scope, self.id)

    def state(self, now: float) -> str:
        """Return `good`, `revoked` or `expired`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "good"

    def check(self, text: str, now: float) -> None:
        """Raise TokenRefused unless `text` is this token and it is good."""
        if not hmac.compare_digest(self.digest, digest_of(text)):
            raise TokenRefused(f"wrong secret for the token {self.id}")
        if (state := self.state(now)) != "good":
            raise TokenRefused(f"the token {self.id} is {state}")


def digest_of(text: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(text.encode()).digest()


def id_of(text: str) -> str | None:
    """Return the id of what looks like a token, None where it does not."""
    match = _FORM.match(text)
    return match[1] if match else None


def mint(
    user: str, scope: Scope, *, now: float, expires: float | None, name: str = ""
) -> tuple[str, Token]:
    """Make a token; return it, to be shown once, and what is to be kept of it.

    Args:
        now, expires: seconds since 1970.

    Raises:
        ValueError: it has no user, nothing that it is for, or ends before it begins.
    """
    if not user:
        raise ValueError("a token needs a user to act for")
    if not scope.actions or not scope.on:
        raise ValueError("a token needs actions and targets")
    if expires is not None and expires <= now:
        raise ValueError("a token cannot end before it begins")
    identity = secrets.token_hex(6)
    text = f"{PREFIX}{identity}_{secrets.token_urlsafe(32)}"
    return text, Token(identity, digest_of(text), user, name, scope, now, expires)
