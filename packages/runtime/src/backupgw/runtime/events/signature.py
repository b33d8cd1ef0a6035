"""Signatures of webhooks, as Standard Webhooks 1.0 has them (standardwebhooks.com).

The headers are Webhook-Id, Webhook-Timestamp (seconds since the epoch) and Webhook-Signature,
`v1,` and the base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`. A secret that starts with `whsec_` is
base64 behind that; any other is taken as it is written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"
TOLERANCE = 300.0
"""Seconds that a receiver should let the timestamp differ from its own clock."""


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for.

    Raises:
        ValueError: it is empty, or starts with whsec_ and goes on with something else than base64.
    """
    if secret.startswith(PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("a secret that starts with whsec_ must go on in base64") from None
    else:
        key = secret.encode()
    if not key:
        raise ValueError("the secret is empty")
    return key


def sign(key: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """Return the value of Webhook-Signature."""
    signed = b"%s.%d.%s" % (identity.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def verify(
    key: bytes, identity: str, timestamp: str, signatures: str, body: bytes, now: float
) -> bool:
    """Whether one of the signatures in a header, space between them, is right and not too old."""
    if not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 15:
        return False
    if abs(now - int(timestamp)) > TOLERANCE:
        return False
    right = sign(key, identity, int(timestamp), body).encode()
    given = signatures.encode().split(b" ")
    return any(hmac.compare_digest(right, signature) for signature in given)
