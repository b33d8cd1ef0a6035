"""The settings of an HTTP host: addresses, TLS, limits, workers, logs.

Services subclass `HttpOptions` for their own section of the settings. Every bad value is refused
here with a message that names it and says what to write instead; what depends on the machine
(a port in use, a missing certificate) is found out when the host starts.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from backupgw.runtime.http.listeners import parse_address

KIB = 1024
MIB = 1024 * 1024


def _listen(value: Any) -> Any:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple):
        raise ValueError(f'{value!r} is no list of addresses; write for example ["127.0.0.1:8000"]')  # noqa: TRY004 - pydantic reports ValueError only
    if not value:
        raise ValueError('no address to listen on; write for example ["127.0.0.1:8000"]')
    for address in value:
        if not isinstance(address, str):
            raise ValueError(f'{address!r} is no address; write for example "127.0.0.1:8000"')  # noqa: TRY004 - pydantic reports ValueError only
        parse_address(address)
    return list(value)


def _mode(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = int(value.removeprefix("0o"), 8)
        except ValueError:
            raise ValueError(f"{value!r} is no file mode; write 0o600 or 0o660") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o777:
        raise ValueError(f"{value!r} is no file mode; write 0o600 or 0o660 (octal, with 0o)")
    if not value & stat.S_IRUSR or not value & stat.S_IWUSR:
        raise ValueError(
            f"mode {value:#o} leaves the owner without access; write 0o600 or 0o660 "
            "(octal, with 0o)"
        )
    return value


def _access_log(value: Any) -> Any:
    # An empty value is how an environment variable or a flag says "none".
    return value or None


Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=0)]


class HttpOptions(BaseModel):
    """How one service is offered over HTTP. Sizes are bytes, times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: list[str] = Field(
        default=["127.0.0.1:8000"],
        description='addresses: "HOST:PORT", ":PORT" (every address), "[::1]:PORT", "unix:PATH"; '
        "port 0 takes a free one. Sockets handed over by systemd take precedence.",
    )
    socket_mode: Annotated[int, BeforeValidator(_mode)] = Field(
        default=0o600, description="mode of a unix socket; 0o660 lets its group in"
    )

    tls: bool = Field(default=False, description="serve TLS on TCP addresses (never on unix ones)")
    tls_cert: Path | None = Field(default=None, description="PEM file, certificate chain")
    tls_key: Path | None = Field(default=None, description="PEM file, private key, not encrypted")
    tls_min_version: Literal["1.2", "1.3"] = "1.2"
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of authorities; when set, every TLS client must show a certificate "
        "signed by one of them",
    )

    workers: int = Field(default=1, ge=1, le=256, description="processes that answer requests")
    access_log: Annotated[str | None, BeforeValidator(_access_log)] = Field(
        default=None, description='a file, "-" for standard output, nothing for none'
    )
    access_log_format: Literal["combined", "json"] = "combined"

    max_header_bytes: int = Field(
        default=64 * KIB, ge=KIB, le=16 * MIB, description="request line and headers; beyond: 431"
    )
    header_timeout: Seconds = Field(
        default=20, description="for the TLS handshake, and for a request's headers; beyond: 408"
    )
    idle_timeout: Seconds = Field(
        default=120, description="an unused connection is kept this long (restic expects 90 s)"
    )
    body_stall_timeout: Seconds = Field(
        default=60, description="no byte of an awaited body for that long ends the request"
    )
    write_stall_timeout: Seconds = Field(
        default=300,
        description="a client that takes no byte of its answer for that long is given up "
        "(restic itself gives up after 300 s)",
    )
    drain_limit: Count = Field(
        default=32 * MIB,
        description="bytes of an unread body thrown away after an early answer, so that the "
        "connection stays usable; a larger rest closes it",
    )
    drain_timeout: Seconds = Field(default=30, description="and no longer than that")
    body_window: int = Field(
        default=MIB,
        ge=64 * KIB,
        le=256 * MIB,
        description="bytes of a body held for the service before the client must wait",
    )
    graceful_timeout: Seconds = Field(
        default=30, description="running requests may take that long after a stop is asked for"
    )
    max_connections: Count = Field(default=4096, description="all workers together; 0: no limit")
    max_connections_per_address: Count = Field(
        default=1024, description="of one client address; 0: no limit"
    )

    metrics: bool = Field(default=False, description="answer /metrics")
    metrics_open: bool = Field(default=False, description="answer it without credentials")

    @field_validator("listen", mode="before")  # holds for services with another default, too
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        return _listen(value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [
            name
            for name in ("tls_cert", "tls_key", "tls_client_ca")
            if getattr(self, name) is not None
        ]
        if given and not self.tls:
            raise ValueError(f"{' and '.join(given)} without tls; set tls = true or remove it")
        return self
