"""A certificate authority for one test session, and a server certificate of it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """PEM files: what the server shows, its key, and the authority that clients trust."""

    chain: Path
    key: Path
    authority: Path

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.authority))


def make_certificate(folder: Path) -> Certificate:
    """Write a fresh authority and a certificate for loopback into `folder`."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate = Certificate(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(str(certificate.chain), append=number > 0)
    issued.private_key_pem.write_to_path(str(certificate.key))
    certificate.key.chmod(0o600)
    authority.cert_pem.write_to_path(str(certificate.authority))
    return certificate
