"""PEM files that an operator names: what is wrong with one is said in words, not in OpenSSL's."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CERTIFICATE, _KEY = "CERTIFICATE", "PRIVATE KEY"
_WANTED = {_CERTIFICATE: "a PEM file with a certificate", _KEY: "a PEM file with a private key"}
_REFUSED = {
    "EE_KEY_TOO_SMALL": "its key is too short; make one of at least 2048 bits (RSA) or 256 (EC)",
    "CA_MD_TOO_WEAK": "it is signed with an outdated hash; have it signed with SHA-256",
}


class PemInvalid(ValueError):
    """A file cannot be used; the message names it and what it should be."""


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have a context use a certificate with its chain, and its key.

    Raises:
        PemInvalid: a file is missing, unreadable, something else or encrypted, or the key does not
            belong to the certificate.
    """
    _look(certificate, _CERTIFICATE)
    _look(key, _KEY)
    try:
        # A callable, or an encrypted key would be asked for on the terminal.
        context.load_cert_chain(certificate, key, lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise PemInvalid(
                f"{key}: the key does not belong to the certificate in {certificate}"
            ) from error
        if error.reason in _REFUSED:
            raise PemInvalid(f"{certificate}: {_REFUSED[error.reason]}") from error
        # OpenSSL does not say which of them it was.
        load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)
        raise PemInvalid(_damaged(key, error)) from error


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Have a context trust the certificates of a file. Raises PemInvalid."""
    _look(path, _CERTIFICATE)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise PemInvalid(_damaged(path, error)) from error


def _look(path: Path, wanted: str) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PemInvalid(f"{path} cannot be read: {error.strerror}") from error
    found = [label.decode() for label in _BEGIN.findall(data)]
    if "ENCRYPTED PRIVATE KEY" in found or b"\nProc-Type: 4,ENCRYPTED" in data:
        raise PemInvalid(
            f"{path}: the key is encrypted; decrypt it: openssl pkey -in {path} -out KEYFILE"
        )
    if any(label.removeprefix("TRUSTED ").endswith(wanted) for label in found):
        return
    if found:
        instead = f'it has "{found[0]}"'
    elif not data:
        instead = "it is empty"
    elif data[:2] == b"\x30\x82":
        what = "x509" if wanted == _CERTIFICATE else "pkey"
        instead = f"it is in DER; openssl {what} -inform DER -in {path} -out PEMFILE"
    else:
        instead = "it is something else"
    raise PemInvalid(
        f'{path}: must be {_WANTED[wanted]} ("-----BEGIN {wanted}-----"), but {instead}'
    )


def _damaged(path: Path, error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return f"{path}: damaged or cut short between its BEGIN and END lines ({reason})"
