"""Signed tokens (JWT, RFC 7519): HS256 and EdDSA, and nothing else.

The key decides the algorithm, never the token (RFC 8725, 3.1): a token names its key by `kid`, and
its header must name the very algorithm that this key is for. Every token ends (`exp`), is meant
for somebody (`aud`) and comes from somebody (`iss`). One that carries an id (`jti`) can be used
up: the store remembers the id until the token has ended.

Keys are rotated by putting a new one first in `[[tokens.key]]`: it signs from then on, while the
old one still verifies what it has signed; it is taken out when that has ended.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from ..authorisation.vocabulary import Principal, Scope
from ..command import CommandError
from ..settings import Settings
from ..settings_tokens import KeySettings, TokenSettings
from .records import TokenRefused
from .store import TokenStore

MIN_SECRET_BYTES = 32
"""RFC 7518, 3.2: as long as the hash."""
MAX_TOKEN_BYTES = 8192
MAX_ID_BYTES = 256
_OWN = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "once", "allow", "on"})


@dataclass(frozen=True)
class Key:
    """A key, ready for use.

    Attributes:
        id, algorithm: see `KeySettings`.
        verifying: what verifies; for HS256 the secret.
        signing: what signs, None where this gateway only verifies.
    """

    id: str
    algorithm: str
    verifying: Any
    signing: Any

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, algorithm={self.algorithm!r})"


@dataclass(frozen=True)
class Claims:
    """What a good token says.

    Attributes:
        principal: who asks, with what the token is for.
        id: `jti`, "" where it has none.
        expires: seconds since 1970.
        extra: claims that are not among those of this module.
    """

    principal: Principal
    id: str
    expires: float
    extra: Mapping[str, Any]


class SignedTokens:
    """Issues and verifies. Safe to use from any thread.

    Args:
        keys: all verify; the first that can sign signs.
        options: issuer, audience, lifetimes.
        store: remembers ids that were used up.
    """

    def __init__(self, keys: Sequence[Key], options: TokenSettings, store: TokenStore) -> None:
        self._store = store
        self.replace(keys, options)

    def replace(self, keys: Sequence[Key], options: TokenSettings) -> None:
        """Use other keys from now on."""
        self._options = options
        self._signer = next((key for key in keys if key.signing is not None), None)
        self._keys = {key.id: key for key in keys}

    def issue(
        self,
        user: str,
        allow: Sequence[str],
        on: Sequence[str],
        *,
        lifetime: int,
        now: float,
        once: bool = False,
        audience: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a token.

        Args:
            user: whom it acts for.
            allow, on: actions and patterns of targets.
            lifetime: seconds, at most `max_lifetime` of the settings.
            now: seconds since 1970.
            once: it can be used a single time.
            audience: who is to accept it, default this gateway's own name.
            extra: further claims.

        Raises:
            ValueError: no key can sign, or a claim cannot be as wanted.
        """
        if self._signer is None:
            raise ValueError("no key in [[tokens.key]] can sign")
        if not 0 < lifetime <= self._options.max_lifetime:
            raise ValueError(f"the lifetime must be 1 to {self._options.max_lifetime} seconds")
        if not user:
            raise ValueError("a token needs a user to act for")
        if taken := _OWN & (extra or {}).keys():
            raise ValueError(f"the claim {min(taken)} is not free")
        Scope.parse(allow, on)
        claims = {
            **(extra or {}),
            "iss": self._options.issuer,
            "aud": audience or self._options.audience,
            "sub": user,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + lifetime,
            "jti": secrets.token_hex(16),
            "allow": list(allow),
            "on": list(on),
        }
        if once:
            claims["once"] = True
        return jwt.encode(
            claims, self._signer.signing, self._signer.algorithm, headers={"kid": self._signer.id}
        )

    def verify(self, text: str, *, now: float, audience: str | None = None) -> Claims:
        """Return what a token says if it is good. One that is good once is refused here.

        Args:
            now: seconds since 1970.
            audience: who is asked, default this gateway's own name.

        Raises:
            TokenRefused: it is not good.
        """
        claims, once = self._verify(text, now, audience or self._options.audience)
        if once:
            raise TokenRefused("the token can be used once only, and not for this")
        return claims

    def verify_once(self, text: str, *, now: float, audience: str | None = None) -> Claims:
        """Return what a token says if it is good, and use it up. Writes: call it on a thread.

        Raises:
            TokenRefused: it is not good, has no id, or was used before, by whatever process.
            TokenStoreError: whether it was used before cannot be told.
        """
        claims, _ = self._verify(text, now, audience or self._options.audience)
        if not claims.id:
            raise TokenRefused("the token has no jti to be used up")
        # Longer than any verifier takes it: else it could come back within the leeway.
        until = claims.expires + self._options.leeway + 1
        if not self._store.spend(self._options.issuer, claims.id, until, now):
            raise TokenRefused("the token was used before")
        return claims

    def _verify(self, text: str, now: float, audience: str) -> tuple[Claims, bool]:
        if len(text) > MAX_TOKEN_BYTES:
            raise TokenRefused("the token is too long")
        try:
            header = jwt.get_unverified_header(text)
            key = self._keys.get(header.get("kid", ""))
            if key is None:
                raise TokenRefused("no key of ours is named by the token")
            if header.get("alg") != key.algorithm:
                raise TokenRefused("the token's algorithm is not its key's")
            if "crit" in header or "b64" in header:
                # RFC 7515, 4.1.11: extensions that are not understood must be refused.
                raise TokenRefused("the token needs extensions that are not known here")
            claims = jwt.decode(
                text,
                key.verifying,
                algorithms=[key.algorithm],
                audience=audience,
                issuer=self._options.issuer,
                # Times are compared below, with the caller's clock.
                options={
                    "require": ["exp", "aud", "iss", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError as error:
            raise TokenRefused(f"not a good signed token: {error}") from error
        except (ValueError, TypeError, RecursionError) as error:
            # What the library lets pass of malformed input is malformed all the same.
            raise TokenRefused("not a signed token") from error
        expires = self._check_times(claims, now)
        return _claims(claims, expires), claims.get("once") is True

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        leeway = self._options.leeway
        expires = _time(claims, "exp")
        if now >= expires + leeway:
            raise TokenRefused("the token has expired")
        if expires > now + self._options.max_lifetime + leeway:
            raise TokenRefused("the token is good for longer than max_lifetime")
        for name in ("nbf", "iat"):
            if name in claims and _time(claims, name) > now + leeway:
                raise TokenRefused(f"the token is not good yet ({name})")
        return expires


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise TokenRefused(f"the claim {name} is no time")
    return float(value)


def _claims(claims: Mapping[str, Any], expires: float) -> Claims:
    user, unique = claims["sub"], claims.get("jti", "")
    if not isinstance(user, str) or not user or not isinstance(unique, str):
        raise TokenRefused("the claims sub and jti must be text")
    if len(unique.encode(errors="replace")) > MAX_ID_BYTES:
        raise TokenRefused("the claim jti is too long")
    allow, on = claims.get("allow", []), claims.get("on", [])
    if not isinstance(allow, list) or not isinstance(on, list):
        raise TokenRefused("the claims allow and on must be lists")
    try:
        # Without these claims it is for nothing: a service that has claims of its own reads them.
        scope = Scope.parse([str(word) for word in allow], [str(text) for text in on])
    except ValueError as error:
        raise TokenRefused(str(error)) from error
    extra = {name: value for name, value in claims.items() if name not in _OWN}
    return Claims(Principal(user, scope, unique), unique, expires, extra)


def from_settings(settings: Settings, store: TokenStore) -> SignedTokens | None:
    """Return what signs and verifies, None where no keys are configured. Reads the secrets.

    Raises:
        CommandError: a key cannot be had or is not what its algorithm needs.
    """
    keys = keys_of(settings)
    return SignedTokens(keys, settings.section("tokens", TokenSettings), store) if keys else None


def keys_of(settings: Settings) -> list[Key]:
    """Read all keys. Raises what `from_settings` raises."""
    keys = []
    for number, key in enumerate(settings.section("tokens", TokenSettings).key):
        try:
            keys.append(load_key(key))
        except ValueError as error:
            raise settings.mistake(str(error), "tokens", "key", number) from error
    return keys


def load_key(settings: KeySettings) -> Key:
    """Read a key.

    Raises:
        ValueError: it is not what the algorithm needs; the message never shows it.
        SecretError: it cannot be had.
    """
    if settings.algorithm == "HS256":
        assert settings.secret is not None
        secret = settings.secret.reveal().encode()
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(
                f"the secret of {settings.id} needs {MIN_SECRET_BYTES} bytes or more; "
                "make one with: openssl rand -hex 32"
            )
        if b"-----BEGIN" in secret:
            # A public key taken for a shared secret is what algorithm confusion is made of.
            raise ValueError(f"the secret of {settings.id} is a PEM file, not a shared secret")
        return Key(settings.id, settings.algorithm, secret, secret)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import (
        load_pem_private_key,
        load_pem_public_key,
    )

    private: object = None
    public: object
    try:
        if settings.secret is not None:
            private = load_pem_private_key(settings.secret.reveal().encode(), None)
            public = private.public_key()
        else:
            public = load_pem_public_key((settings.public or "").encode())
    except CommandError:
        raise
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not chained: the library may quote what it read.
        raise ValueError(
            f"the key {settings.id} is not a PEM key without a password; "
            "make one with: openssl genpkey -algorithm ed25519"
        ) from None
    if not isinstance(public, Ed25519PublicKey) or not isinstance(
        private, Ed25519PrivateKey | None
    ):
        message = f"the key {settings.id} is not an Ed25519 key"
        raise ValueError(message)  # noqa: TRY004 - wrong settings, not a wrong type in a program
    return Key(settings.id, settings.algorithm, public, private)
