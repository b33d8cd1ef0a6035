"""Whether a TLS certificate and its key belong together, and how long the certificate holds.

Found out by a handshake in memory, with the interpreter's own TLS and no socket.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from . import pem
from .command import CommandError


@dataclass(frozen=True)
class Validity:
    """When a certificate begins and ends to be valid, seconds since the epoch."""

    begins: float
    ends: float


def check_pair(certificate: Path, key: Path) -> Validity:
    """Return how long the certificate holds.

    Raises:
        CommandError: a file cannot be read or used, the key belongs to another certificate, or
            the certificate is not valid now or not for servers.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        pem.load_pair(server_side, certificate, key)
    except pem.PemInvalid as error:
        raise CommandError(str(error)) from error
    return _shake_hands(certificate, server_side)


def _shake_hands(certificate: Path, server_side: ssl.SSLContext) -> Validity:
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    # The certificate itself is what is trusted: only its own dates and purpose count here.
    client_side.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_side.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError as error:
        raise CommandError(f"{certificate}: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise CommandError(f"{certificate}: {error.reason}") from error
    facts = client.getpeercert() or {}
    return Validity(
        ssl.cert_time_to_seconds(str(facts["notBefore"])),
        ssl.cert_time_to_seconds(str(facts["notAfter"])),
    )
