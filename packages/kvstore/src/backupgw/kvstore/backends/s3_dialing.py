"""Connections to an S3 service, without the library."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .rest_dialing import Dial, TcpConnection, TlsConnection, wait_at_most

if TYPE_CHECKING:
    from .s3_settings import Settings


def dial_to(settings: Settings, base: str, authorities: str) -> Dial:
    """Return what connects to the service that a URL is of; `authorities` sign its certificate."""
    parts = urlsplit(base)
    host, port = parts.hostname or "", parts.port
    wait = settings.connect_timeout
    if parts.scheme == "http":
        return lambda timeout: _Tcp(host, port, timeout, wait)
    context = ssl.create_default_context(cafile=authorities)
    return lambda timeout: _Tls(host, port, timeout, wait, context)


class _Tcp(TcpConnection):
    """A connection whose making may take another time than its answers."""

    def __init__(self, host: str, port: int | None, timeout: float, connect: float) -> None:
        super().__init__(host, port, timeout=connect)
        self._answers = timeout

    def connect(self) -> None:
        super().connect()
        wait_at_most(self.sock, self._answers)


class _Tls(TlsConnection):
    """The same with TLS."""

    def __init__(
        self, host: str, port: int | None, timeout: float, connect: float, context: ssl.SSLContext
    ) -> None:
        super().__init__(host, port, timeout=connect, context=context)
        self._answers = timeout

    def connect(self) -> None:
        super().connect()
        wait_at_most(self.sock, self._answers)
