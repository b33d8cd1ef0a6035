"""Values that tell by themselves whether they are whole, so that torn ones are recognised."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

_HEADER = 16
PIECE = 1 << 16


def make(seed: int, size: int) -> bytes:
    """Return a value of `size` bytes (at least 16) that `is_whole` recognises."""
    header = seed.to_bytes(8, "big") + size.to_bytes(8, "big")
    return header + random.Random(seed).randbytes(size - _HEADER)  # noqa: S311 - not for secrets


def is_whole(value: bytes) -> bool:
    """Whether `value` is exactly what `make` once returned."""
    if len(value) < _HEADER:
        return False
    seed, size = int.from_bytes(value[:8], "big"), int.from_bytes(value[8:_HEADER], "big")
    return size == len(value) and value == make(seed, size)


def stream(size: int) -> Iterator[bytes]:
    """Yield `size` bytes in pieces of up to 64 KiB, no two pieces alike."""
    for number, start in enumerate(range(0, size, PIECE)):
        block = hashlib.sha256(number.to_bytes(8, "big")).digest()
        yield (block * (PIECE // len(block)))[: min(PIECE, size - start)]


def stream_hash(size: int) -> str:
    """Return the SHA-256 of what `stream(size)` yields."""
    digest = hashlib.sha256()
    for piece in stream(size):
        digest.update(piece)
    return digest.hexdigest()
