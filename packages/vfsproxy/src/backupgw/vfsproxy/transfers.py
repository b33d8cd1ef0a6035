"""Tokens for single transfers: a link that downloads a file, an address that takes an upload.

JWTs (HS256) with the claims of Backend.AI's storage proxy, so that its clients can use them, and
with ours beside them: who asked for the token (`sub`), and by which right. It allows nothing that
this user may not do when it is used. The key lies in the database, is made when it is first needed,
and is known to all gateways that share it; nobody else can sign.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Literal

import jwt
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backupgw.runtime.authorisation import Principal
from backupgw.runtime.database import Connection, Database, clock, insert_new
from backupgw.runtime.database.tables.vfs import vfs_keys

from .identity import MANAGER, Identity
from .problems import Problem

_KEY = "transfers"
_ALGORITHM = "HS256"
LONGEST = 64 << 10
"""Characters of a token: it may name many files."""
LEEWAY = 10
"""Seconds that the gateways' clocks may differ."""


class _Claims(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    sub: str
    via: Literal["token", "manager"]
    exp: int
    volume: str


class DownloadClaims(_Claims):
    """A file, or with `archive` a folder."""

    op: Literal["download"] = "download"
    vfid: str
    relpath: str


class UploadClaims(_Claims):
    """An upload that has been begun."""

    op: Literal["upload"] = "upload"
    vfid: str
    relpath: str
    size: int
    session: str
    room: str | None = None
    """What `TusUploads.expect` keeps for it; None where the upload is remembered."""


class ArchiveClaims(_Claims):
    """Several files and folders as one archive."""

    operation: Literal["download"] = "download"
    virtual_folder_id: str
    files: list[str] = Field(min_length=1)
    filename: str | None = None


class Transfers:
    """Signs and verifies. For any thread; `issue` and `read` block at most once."""

    def __init__(self, database: Database, lifetime: int) -> None:
        self._database = database
        self._lifetime = lifetime
        self._signer: jwt.PyJWK | None = None

    def issue(self, who: Identity, kind: type[_Claims], claims: Mapping[str, Any]) -> str:
        """Return a token that is good for a while.

        Args:
            claims: what `kind` has beside who and until when.
        """
        found = kind.model_validate(
            {
                **claims,
                "sub": who.user,
                "via": "manager" if who.manager else "token",
                "exp": int(time.time()) + self._lifetime,
            }
        )
        document = found.model_dump(exclude_none=True)
        return jwt.encode(document, self._key(), algorithm=_ALGORITHM)

    def read(self, token: str, kind: type[_Claims]) -> tuple[Identity, Any]:
        """Return for whom a token acts, and its claims.

        Raises:
            Problem: 401, it is not good, or for something else.
        """
        if len(token) > LONGEST:
            raise _refused()
        try:
            found = _of_ours(token, self._key()) or jwt.decode(
                token,
                self._key(),
                algorithms=[_ALGORITHM],
                leeway=LEEWAY,
                options={"require": ["exp", "sub"]},
            )
            claims = kind.model_validate(found)
        except (jwt.PyJWTError, ValidationError, ValueError, TypeError, RecursionError) as error:
            raise _refused() from error
        if claims.via == "manager":
            return MANAGER, claims
        return Identity(Principal(claims.sub), "transfer"), claims

    def _key(self) -> jwt.PyJWK:
        if self._signer is None:
            secret = self._database.run(_found_or_made, idempotent=True)
            # As a PyJWK it is looked at once, and not each time whether it might be something else.
            key = {"kty": "oct", "k": _base64(secret).decode(), "alg": _ALGORITHM}
            self._signer = jwt.PyJWK(key)
        return self._signer


def _found_or_made(connection: Connection) -> bytes:
    values = {"name": _KEY, "secret": secrets.token_bytes(32), "created": clock()}
    insert_new(connection, vfs_keys, values)
    query = sa.select(vfs_keys.c.secret).where(vfs_keys.c.name == _KEY)
    return bytes(connection.execute(query).scalar_one())


def _of_ours(token: str, key: jwt.PyJWK) -> Any:
    """Return the claims of a good token as we write them; None for any other, which the library may
    judge: it looks at every character by itself, and these tokens come with every small file."""
    signed, _, signature = token.rpartition(".")
    if not signed.startswith(_HEAD):
        return None
    expected = hmac.digest(key.key, signed.encode(), "sha256")
    if not hmac.compare_digest(_base64(expected), signature.encode()):
        return None
    payload = signed.removeprefix(_HEAD)
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims if claims["exp"] + LEEWAY > time.time() else None


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


_HEAD = jwt.encode({}, "x" * 32, algorithm=_ALGORITHM).partition(".")[0] + "."
"""What every token of ours begins with."""


def _refused() -> Problem:
    challenge = (b"www-authenticate", b'Bearer realm="backupgw"')
    return Problem(
        401,
        "unauthorised",
        "the token is not good for this, or no longer",
        headers=[challenge],
    )
