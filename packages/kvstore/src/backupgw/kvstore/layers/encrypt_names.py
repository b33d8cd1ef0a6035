"""Names on an encrypted place: left readable, or sealed with a key.

A sealed segment is AES-SIV (RFC 5297) over the segment, bound to the plain folder that it lies in,
written in base32 with lower-case letters. The same name in the same folder gives the same segment,
which is how an item is found; who has no key sees the number of items, their sizes and times, the
shape of the tree and how long names are, but no name, and not which folders hold equal names. A
segment that was changed, or moved to another folder, is noticed.

Segments of the kernel's own part stay as they are.
"""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from ..backends.errors import NameTooLong
from ..names import KERNEL_MARGIN, MAX_PATH_BYTES, MAX_SEGMENT_BYTES, KernelPath, is_reserved
from .encrypt_age import Key

MOST_SEGMENT_BYTES = MAX_SEGMENT_BYTES * 5 // 8 - 16
"""Bytes that a segment may have where names are sealed: 143."""


class Names(Protocol):
    """Between the names that clients say and those on the place."""

    def sealed(self, name: str) -> str:
        """Return what a checked path is called on the place. Raises NameTooLong."""

    def opened(self, folder: str, segment: str) -> str | None:
        """Return the plain segment of an entry of a plain folder; None if it is no name of ours."""


class ReadableNames:
    """Names stay as they are."""

    def sealed(self, name: str) -> str:
        return name

    def opened(self, folder: str, segment: str) -> str | None:  # noqa: ARG002
        return segment


class KeyedNames:
    """Names are sealed.

    Args:
        key: from which theirs is derived.
    """

    def __init__(self, key: Key) -> None:
        self._cipher = AESSIV(key.derive(b"names/v1", 64))

    def sealed(self, name: str) -> str:
        if name == "":
            return name
        folder, segments = "", []
        for segment in name.split("/"):
            segments.append(segment if is_reserved(segment) else self._seal(folder, segment))
            folder = f"{folder}/{segment}"
        path = "/".join(segments)
        kernel = isinstance(name, KernelPath)
        if len(path) > MAX_PATH_BYTES + (KERNEL_MARGIN if kernel else 0):
            raise NameTooLong(
                f"{name[:60]}…: too long for a place with sealed names, where it takes "
                f"{len(path)} bytes of {MAX_PATH_BYTES}"
            )
        return KernelPath(path) if kernel else path

    def opened(self, folder: str, segment: str) -> str | None:
        if is_reserved(segment):
            return segment
        try:
            sealed = base64.b32decode(segment.upper() + "=" * (-len(segment) % 8))
            name = self._cipher.decrypt(sealed, [_bound(f"/{folder}" if folder else "")]).decode()
        except (InvalidTag, binascii.Error, ValueError):
            return None
        return name if segment == self._text(sealed) else None

    def _seal(self, folder: str, segment: str) -> str:
        plain = segment.encode()
        if len(plain) > MOST_SEGMENT_BYTES:
            raise NameTooLong(
                f"{segment[:60]}…: with sealed names a segment has at most {MOST_SEGMENT_BYTES} "
                f"bytes, not {len(plain)}"
            )
        return self._text(self._cipher.encrypt(plain, [_bound(folder)]))

    def _text(self, sealed: bytes) -> str:
        return base64.b32encode(sealed).rstrip(b"=").lower().decode()


def _bound(folder: str) -> bytes:
    return b"in " + folder.encode()
