"""Everything that a place on S3 can be told, checked once."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args
from urllib.parse import urlsplit

from ..layers import options
from ..layers.options import OptionInvalid
from ..layers.retry_schedule import Schedule
from .api_calls import OnCall
from .s3_urls import Location

LEAST_PART = 5 << 20
"""Bytes that every part but the last must have
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""

MOST_PART = 5 << 30
"""Bytes that a part, a value sent by one request, or an object copied by one may have."""

MOST_PARTS = 10_000
"""Parts of a value, at most."""

MOST_KEY = 1024
"""Bytes of a key in UTF-8, at most."""

MEMORY = 40 << 20
"""Bytes of values on their way that are held for all writers together: two packs of restic's."""

_CUSTOMER_KEY = 32

T = TypeVar("T")

Style = Literal["auto", "path", "virtual"]
Checksums = Literal["when_required", "when_supported"]
Sse = Literal["AES256", "aws:kms", "aws:kms:dsse"]
LockMode = Literal["GOVERNANCE", "COMPLIANCE"]

STYLES: tuple[Style, ...] = get_args(Style)
CHECKSUMS: tuple[Checksums, ...] = get_args(Checksums)
SSES: tuple[Sse, ...] = get_args(Sse)
LOCK_MODES: tuple[LockMode, ...] = get_args(LockMode)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a bucket is reached, and what objects get. Times are in seconds, sizes in bytes."""

    bucket: str
    path: str
    profile: str | None
    key_id: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    session_token: str | None = field(repr=False)
    endpoint: str | None
    region: str | None
    style: Style
    cacert: str | None
    checksums: Checksums | None
    """None: as it is best at Amazon, or elsewhere."""
    storage_class: str | None
    sse: Sse | None
    sse_kms_key: str | None
    sse_customer_key: bytes | None = field(repr=False)
    retention: float | None
    lock_mode: LockMode
    part_size: int
    parallel: int
    memory: int
    connections: int
    timeout: float
    connect_timeout: float
    schedule: Schedule
    atomic_create: bool | None
    """None: find out."""
    delete_versions: bool
    create_bucket: bool
    on_call: OnCall | None = field(default=None, repr=False)
    copied_at_once: int = MOST_PART

    @property
    def server(self) -> str:
        """What messages call the service."""
        return self.endpoint or "Amazon S3"

    @property
    def label(self) -> str:
        """What messages call the place; without credentials."""
        return "/".join(filter(None, (self.endpoint or "s3:/", self.bucket, self.path)))

    @property
    def amazon(self) -> bool:
        """Whether it is Amazon's own service."""
        host = (self.endpoint or "https://s3.amazonaws.com").partition("://")[2].partition(":")[0]
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    @property
    def whole_at_most(self) -> int:
        """Bytes up to which a value that is larger than a part goes by one request, where all of
        it can be sent while it comes: two such are held at a time."""
        return min(self.memory // 2, MOST_PART)

    @property
    def equal_parts(self) -> bool:
        """Whether all parts but the last must be of one size: so at Cloudflare
        (https://developers.cloudflare.com/r2/objects/multipart-objects/)."""
        return (self.endpoint or "").endswith(".r2.cloudflarestorage.com")


def credentials(
    location: Location, profile: str | None, key_id: str | None, secret: str | None
) -> tuple[str | None, str | None, str | None]:
    """Return profile, key id and secret: the URL's, or the options'.

    Raises:
        OptionInvalid: both say something, or half is missing.
    """
    if location.profile or location.key_id:
        if profile or key_id or secret:
            raise OptionInvalid("profile", "the URL has credentials, so no option may have others")
        return location.profile, location.key_id, location.secret
    if profile and (key_id or secret):
        raise OptionInvalid("profile", "a profile and a key exclude each other")
    if bool(key_id) != bool(secret):
        missing = "secret_access_key" if key_id else "access_key_id"
        raise OptionInvalid(missing, "is missing: a key is an id and a secret")
    return profile or None, key_id or None, secret or None


def customer_key(text: str) -> bytes:
    """Return the 32 bytes of a key for SSE-C: written in base64 or in hex.

    Raises:
        OptionInvalid: it is none; the message does not show it.
    """
    try:
        key = (
            bytes.fromhex(text)
            if len(text) == 2 * _CUSTOMER_KEY
            else base64.b64decode(text, validate=True)
        )
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != _CUSTOMER_KEY:
        raise OptionInvalid("sse_customer_key", "must be 32 bytes in base64 or hex")
    return key


def endpoint_of(location: Location, endpoint: str | None, region: str | None) -> str | None:
    """Return scheme, host and port of the service, None for Amazon's.

    Raises:
        OptionInvalid: it cannot be told, or is told twice.
    """
    if location.endpoint and endpoint:
        raise OptionInvalid("endpoint", "the URL names one already")
    chosen = location.endpoint or endpoint
    if chosen is not None:
        chosen = options.server("endpoint", chosen)
        if urlsplit(chosen).path:
            raise OptionInvalid("endpoint", "must be http(s)://HOST[:PORT], without a path")
    if chosen is None and location.scheme == "b2":
        if region is None:
            raise OptionInvalid(
                "region",
                "b2: needs the region, the second word of the bucket's endpoint: "
                "us-west-004 of s3.us-west-004.backblazeb2.com",
            )
        return f"https://s3.{region}.backblazeb2.com"
    return chosen


def region_of(endpoint: str | None, region: str | None) -> str | None:
    """Return the region that requests are signed for; None: what the profile or the environment
    has. Backblaze and Wasabi have it in their hosts' names."""
    if region is None and endpoint is not None:
        match = re.search(
            r"//s3\.([a-z0-9-]+)\.(?:backblazeb2|wasabisys)\.com(?::\d+)?\Z",
            endpoint,
            re.IGNORECASE,
        )
        return match[1] if match else "us-east-1"
    return region


def one_of(option: str, value: object, known: Sequence[T]) -> T:
    """Return what `value` means among `known`, whatever its case. Raises OptionInvalid."""
    for each in known:
        if str(value).lower() == str(each).lower():
            return each
    raise OptionInvalid(option, f"{value!r} is none of {', '.join(map(str, known))}")
