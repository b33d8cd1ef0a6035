"""TLS: the context, and its certificate when that is renewed while we run."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

from backupgw.runtime import pem
from backupgw.runtime.http.errors import HostError
from backupgw.runtime.http.options import HttpOptions

logger = logging.getLogger(__name__)

CHECK_EVERY = 30.0  # seconds between two looks at the files
Mark = tuple[int, int, int]


class Certificate:
    """The server's TLS context; `refresh` takes over a renewed certificate and key.

    New connections get the new pair, those that are open keep theirs. A pair that cannot be used
    (half written, not matching) is logged, and the old one stays.
    """

    def __init__(self, options: HttpOptions) -> None:
        """Build the context.

        Raises:
            HostError: a file is missing, unreadable, no PEM, encrypted, or the key does not match.
        """
        if options.tls_cert is None or options.tls_key is None:
            missing = "tls_cert" if options.tls_cert is None else "tls_key"
            raise HostError(f"tls is on, but {missing} is not set; name the PEM file")
        self._cert = options.tls_cert
        self._key = options.tls_key
        self._marks = self._look()
        self.context = _server_context(options)
        _load_pair(self.context, self._cert, self._key)

    def _look(self) -> list[Mark | None]:
        marks: list[Mark | None] = []
        for path in (self._cert, self._key):
            try:
                found = os.stat(path)
            except OSError:
                marks.append(None)
            else:
                marks.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return marks

    def refresh_if_changed(self) -> None:
        """Take the pair over if its files have changed since the last look."""
        if self._look() != self._marks:
            self.refresh()

    def refresh(self) -> None:
        """Take the pair over now, if it can be used."""
        marks = self._look()
        try:
            # Tried on another context first: a context into which half a pair was loaded would
            # fail every handshake.
            _load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._cert, self._key)
            _load_pair(self.context, self._cert, self._key)
        except HostError as error:
            logger.error("%s; the old certificate stays in use", error)  # noqa: TRY400 - the line says it all
        else:
            logger.info("TLS certificate %s loaded again", self._cert)
        self._marks = marks


def _server_context(options: HttpOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if options.tls_min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    )
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if options.tls_client_ca is not None:
        try:
            pem.load_authorities(context, options.tls_client_ca)
        except pem.PemInvalid as error:
            raise HostError(f"tls_client_ca {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        pem.load_pair(context, cert, key)
    except pem.PemInvalid as error:
        raise HostError(f"TLS certificate and key: {error}") from error
