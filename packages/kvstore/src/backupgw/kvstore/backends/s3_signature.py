"""Signature version 4 of a request to S3: the part of it that requests for one object need.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. The library signs,
too, and takes half of the processor time of a small object for it.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

_NOTHING = hashlib.sha256().hexdigest()


def sign(
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    data: bytes | bytearray | memoryview | None,
    *,
    key_id: str,
    secret: str,
    token: str | None,
    region: str,
    digest: str | None = None,
    now: datetime | None = None,
) -> dict[str, str]:
    """Return the headers of a request that has no query, the signature among them.

    Args:
        host: as it is sent, with a port that is not the protocol's own.
        path: quoted, as it is sent.
        headers: in lower case; those that begin with "x-amz-" are signed.
        data: the body; its hash is signed, so that the service refuses what was damaged.
        key_id, secret, token: by which it is signed.
        region: of the bucket.
        digest: the body's SHA-256 in hex, where that is known already.
        now: default the present time.
    """
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    hashed = digest or (_NOTHING if data is None else hashlib.sha256(data).hexdigest())
    sent = {**headers, "x-amz-content-sha256": hashed, "x-amz-date": stamp}
    if token is not None:
        sent["x-amz-security-token"] = token
    signed = {name: value for name, value in sent.items() if name.startswith("x-amz-")}
    signed["host"] = host
    names = sorted(signed)
    listed = ";".join(names)
    lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in names)
    request = f"{method}\n{path}\n\n{lines}\n{listed}\n{hashed}"
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    asked = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{asked}"
    signature = hmac.new(_key(secret, stamp[:8], region), text.encode(), "sha256").hexdigest()
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={listed}, "
        f"Signature={signature}"
    )
    return sent


@functools.lru_cache(8)
def _key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
