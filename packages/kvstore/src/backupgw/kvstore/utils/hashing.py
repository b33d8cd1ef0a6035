"""hashlib's algorithms, and blake3 where the optional library of that name is installed."""

from __future__ import annotations

import hashlib
import importlib
from typing import BinaryIO, Protocol

BLAKE3 = "blake3"
_READ_SIZE = 1 << 20


class Digest(Protocol):
    """The part of a hashlib object that is used here."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def new(algorithm: str, data: bytes = b"") -> Digest:
    """Return a new digest, fed with `data`.

    Raises:
        ValueError: no such algorithm, one without a fixed length (shake), or blake3 without its
            library.
    """
    digest = _blake3() if algorithm == BLAKE3 else _from_hashlib(algorithm)
    digest.update(data)
    return digest


def file_digest(fileobj: BinaryIO, algorithm: str) -> Digest:
    """Return the digest of what is left to read of a binary file; errors as in `new`."""
    digest = new(algorithm)
    while chunk := fileobj.read(_READ_SIZE):
        digest.update(chunk)
    return digest


def _from_hashlib(algorithm: str) -> Digest:
    try:
        digest = hashlib.new(algorithm)
    except (ValueError, TypeError):
        raise ValueError(f"Unsupported hash algorithm: {algorithm}") from None
    if digest.digest_size == 0:
        raise ValueError(f"Unsupported hash algorithm: {algorithm} has no length of its own")
    return digest


def _blake3() -> Digest:
    try:
        module = importlib.import_module(BLAKE3)
    except ImportError:
        raise ValueError(f"Unsupported hash algorithm: {BLAKE3} (pip install blake3)") from None
    digest: Digest = module.blake3()
    return digest
