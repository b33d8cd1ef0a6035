"""CRC-32C as Google Cloud Storage tells and takes it."""

from __future__ import annotations

import base64

import google_crc32c


def crc32c(data: bytes | bytearray) -> str:
    """Return the CRC-32C of some bytes as Google writes it."""
    return encoded_crc(extended(0, data))


def extended(crc: int, data: bytes | bytearray) -> int:
    """Return the CRC-32C of what had `crc` and these bytes."""
    for start in range(0, len(data), 1 << 20):
        crc = google_crc32c.extend(crc, bytes(data[start : start + (1 << 20)]))
    return crc


def encoded_crc(crc: int) -> str:
    """Return a CRC-32C in base64, as Google writes it."""
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
