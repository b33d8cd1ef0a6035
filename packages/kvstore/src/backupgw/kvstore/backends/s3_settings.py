"""Everything that a place on S3 can be told, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ..layers.retry_schedule import Schedule
from .api_calls import OnCall

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
