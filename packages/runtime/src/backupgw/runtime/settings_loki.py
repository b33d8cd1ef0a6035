"""The table `[log.loki]`: a Grafana Loki that gets all log records."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from .secrets import Secret

if TYPE_CHECKING:
    from .loki import Loki

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


class LokiSettings(BaseModel):
    """Where records are sent, in batches, without anybody waiting for it.

    Attributes:
        url: of Loki, "http://loki.example:3100", or the whole address of its push API.
        user: for HTTP Basic, with `password`.
        password: that user's.
        token: shown as `Authorization: Bearer`.
        tenant: whose records these are (`X-Scope-OrgID`).
        labels: of all records; default service_name and host.
        metadata: send folders' and requests' ids as structured metadata; not to a Loki before 2.9.
        ca_file: certificates to trust instead of the system's, PEM.
        queue: text such as "16 MiB": records kept while Loki is away; what is more is lost.
        timeout: seconds that Loki may take for a batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    user: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    tenant: str | None = Field(None, pattern=r"^[A-Za-z0-9!\-_.*'()]{1,150}$")
    labels: dict[str, str] = Field(default={})
    metadata: bool = True
    ca_file: Path | None = None
    queue: ByteSize = Field(ByteSize(16 << 20), ge=1 << 16, le=1 << 30)
    timeout: float = Field(10.0, gt=0, le=120)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            plain = not (parts.query or parts.fragment)
        except ValueError:
            good = plain = False
        if "@" in url:
            raise ValueError("has a user or a password in it; use user and password")
        if not (good and plain):
            raise ValueError('is no address of a Loki; write "http://HOST:3100"')
        return url

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            if not _LABEL.match(name):
                raise ValueError(f"{name!r} is no label's name; it has letters, digits and _ only")
        return labels

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("has one of user and password; it needs both or neither")
        if self.token is not None and self.user is not None:
            raise ValueError("has a token beside a user; it shows one of them")
        return self

    def open(self) -> Loki:
        """Return where records go, secrets revealed. Raises SecretError: one cannot be had."""
        from .loki import Loki, basic  # late, with what it needs of the network

        headers = {}
        if self.user is not None and self.password is not None:
            headers["Authorization"] = basic(self.user, self.password.reveal())
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.reveal()}"
        if self.tenant is not None:
            headers["X-Scope-OrgID"] = self.tenant
        return Loki(
            self.url,
            headers,
            self.labels or {"service_name": "backupgw", "host": socket.gethostname()},
            metadata=self.metadata,
            ca_file=None if self.ca_file is None else str(self.ca_file),
            queue=int(self.queue),
            timeout=self.timeout,
        )
