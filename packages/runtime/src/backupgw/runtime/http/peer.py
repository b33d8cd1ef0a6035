"""Who is at the other end of a TLS connection, as ASGI's TLS extension tells it."""

from __future__ import annotations

import re
import ssl
from typing import Any

VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
# RFC 4514, 3: the short names of attributes; others are written as OpenSSL names them.
SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
ESCAPED = re.compile(r'([,+"\\<>;=]|^[ #]| $)')


def tls_extension(connection: ssl.SSLObject) -> dict[str, Any]:
    """Describe a connection for `scope["extensions"]["tls"]` (ASGI TLS extension 0.2).

    `client_cert_name` is the RFC 4514 subject of a client certificate that was verified, else
    None; `client_common_name`, ours, is its CN alone. Neither is ever set from what was not
    verified: without `tls_client_ca` no certificate is asked for.
    """
    certificate = connection.getpeercert() or {}
    subject = certificate.get("subject", ())
    attributes = [
        [(str(pair[0]), str(pair[1])) for pair in group]
        for group in subject
        if isinstance(group, tuple)
    ]
    names = [value for group in attributes for name, value in group if name == "commonName"]
    return {
        "tls_version": VERSIONS.get(connection.version() or ""),
        "client_cert_name": _distinguished(attributes) if attributes else None,
        "client_common_name": names[-1] if names else None,
    }


def _distinguished(attributes: list[list[tuple[str, str]]]) -> str:
    # RFC 4514, 2.1: the last component comes first.
    return ",".join(
        "+".join(f"{SHORT.get(name, name)}={ESCAPED.sub(_escape, value)}" for name, value in group)
        for group in reversed(attributes)
    )


def _escape(match: re.Match[str]) -> str:
    return "\\" + match[0]
