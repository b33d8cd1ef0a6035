"""The section `[tokens]`: how long bearer tokens live, and the keys of signed ones."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .secrets import Secret


class KeySettings(BaseModel):
    """One `[[tokens.key]]`.

    Attributes:
        id: what a signed token names its key by (`kid`).
        algorithm: HS256, one secret for both sides; EdDSA (Ed25519), a private and a public key.
        secret: HS256: at least 32 bytes; EdDSA: the private key in PEM, where this gateway signs.
        public: EdDSA: the public key in PEM, where this gateway only verifies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    algorithm: Literal["HS256", "EdDSA"]
    secret: Secret | None = None
    public: str | None = None

    @model_validator(mode="after")
    def _one_side(self) -> KeySettings:
        if self.algorithm == "HS256" and (self.secret is None or self.public is not None):
            raise ValueError("HS256 needs secret, and has no public key")
        if self.algorithm == "EdDSA" and (self.secret is None) == (self.public is None):
            raise ValueError("EdDSA needs secret (to sign) or public (to verify only), not both")
        return self


class TokenSettings(BaseModel):
    """Bearer tokens, and signed tokens (JWT).

    Attributes:
        lifetime: days that a new token is good for, unless told otherwise.
        issuer: `iss` of signed tokens.
        audience: `aud` of signed tokens: this gateway's name among those that share keys.
        max_lifetime: seconds that a signed token may be good for, at most.
        leeway: seconds that the clocks of issuer and verifier may differ.
        key: keys of signed tokens, as [[tokens.key]]; all verify, the first that can sign signs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lifetime: int = Field(default=90, ge=1, le=36_500)
    issuer: str = Field(default="backupgw", min_length=1)
    audience: str = Field(default="backupgw", min_length=1)
    max_lifetime: int = Field(default=86_400, ge=1, le=31_536_000)
    leeway: int = Field(default=30, ge=0, le=600)
    key: list[KeySettings] = []

    @field_validator("key")
    @classmethod
    def _once(cls, keys: list[KeySettings]) -> list[KeySettings]:
        ids = [key.id for key in keys]
        if twice := {name for name in ids if ids.count(name) > 1}:
            raise ValueError(f"has the id {min(twice)!r} twice; give each key its own")
        return keys
