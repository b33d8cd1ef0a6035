"""Where an encrypted write stands: the token of its checkpoint.

No chunk is ever sealed twice, whoever carries the write on: those that were sealed are the inner
place's, and the plain bytes of the one that is not full yet travel in the token, sealed for that
purpose alone. What opens them, and the file's own key, is the place's key, so a token tells nothing
to who does not have that.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..backends.plan import Plan
from ..names import InvalidName, check_path
from .encrypt_age import Key, Undecryptable

_VERSION = 1
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Stopped:
    """A checkpoint.

    Attributes:
        inner: the token of the place that gets the file.
        plan: the terms, in plain.
        start: what the file begins with.
        number: of the chunk that is not sealed yet.
        pending: its bytes so far, sealed.
        digest: the state of the SHA-256 of the plain bytes, None where no hash is expected.
    """

    inner: str
    plan: Plan
    start: bytes
    number: int
    pending: bytes
    digest: str | None

    def token(self) -> str:
        """Return it as text."""
        plan = self.plan
        return json.dumps(
            [
                _VERSION,
                self.inner,
                [plan.name, plan.size, plan.if_absent, plan.expected_hash],
                base64.b64encode(self.start).decode(),
                self.number,
                base64.b64encode(self.pending).decode(),
                self.digest,
            ]
        )

    @classmethod
    def of_token(cls, token: str) -> Stopped:
        """Read a token. Raises ValueError for what `token` did not return."""
        try:
            match json.loads(token):
                case [
                    1,
                    str(inner),
                    [str(name), int() | None as size, bool(if_absent), str() | None as expected],
                    str(start),
                    int(number),
                    str(pending),
                    str() | None as digest,
                ] if number >= 0 and (expected is None) == (digest is None):
                    plan = Plan(check_path(name), size, if_absent, expected)
                    begun = base64.b64decode(start, validate=True)
                    rest = base64.b64decode(pending, validate=True)
                    return cls(inner, plan, begun, number, rest, digest)
        except (ValueError, TypeError, InvalidName, RecursionError) as error:
            raise ValueError("not a token of a checkpoint") from error
        raise ValueError("not a token of a checkpoint")

    def opened(self, key: Key) -> bytes:
        """Return the plain bytes of the last chunk. Raises Undecryptable."""
        nonce, sealed = self.pending[:_NONCE], self.pending[_NONCE:]
        try:
            return _cipher(key).decrypt(nonce, sealed, self.start)
        except (InvalidTag, ValueError) as error:
            raise Undecryptable(f"{self.plan.name}: the token is not of this place") from error


def sealed_pending(key: Key, start: bytes, pending: bytes) -> bytes:
    """Seal the plain bytes of a chunk that is not full, bound to their file."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + _cipher(key).encrypt(nonce, pending, start)


def _cipher(key: Key) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(key.derive(b"checkpoint/v1", 32))
