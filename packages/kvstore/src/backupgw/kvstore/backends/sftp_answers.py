"""What an SFTP server's answers say: their bodies, as `sftp_wire` hands them to those who asked.

The forms are those of version 3, draft-ietf-secsh-filexfer-02.
"""

from __future__ import annotations

import struct
from typing import NamedTuple


class Refused(Exception):
    """The server's status for a request that it did not carry out."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text or f"status {code}")
        self.code = code
        self.text = text


class Attributes(NamedTuple):
    """What a server tells of a file; None for what it does not."""

    size: int | None
    mode: int | None
    atime: int | None
    mtime: int | None


class Entry(NamedTuple):
    """One entry of a folder."""

    name: bytes
    attributes: Attributes


def string(body: memoryview) -> bytes:
    """Return the string that an answer begins with: a handle."""
    return text_at(body, 0)[0]


def data(body: memoryview) -> memoryview:
    """Return the bytes of a DATA answer, not copied."""
    (size,) = struct.unpack_from(">I", body)
    return body[4 : 4 + size]


def attributes(body: memoryview) -> Attributes:
    """Return the attributes of an ATTRS answer."""
    return _attributes(body, 0)[0]


def names(body: memoryview) -> list[Entry]:
    """Return the entries of a NAME answer."""
    (count,) = struct.unpack_from(">I", body)
    entries, at = [], 4
    for _ in range(count):
        name, at = text_at(body, at)
        _, at = text_at(body, at)
        found, at = _attributes(body, at)
        entries.append(Entry(name, found))
    return entries


def refusal(body: memoryview) -> Refused:
    """Return what a STATUS answer says, as an exception to raise."""
    (code,) = struct.unpack_from(">I", body)
    said = text_at(body, 4)[0].decode(errors="replace") if len(body) > 4 else ""
    return Refused(code, " ".join(said.split())[:200])


def text_at(body: bytes | memoryview, at: int) -> tuple[bytes, int]:
    """Return the string at a position, and the position behind it."""
    (size,) = struct.unpack_from(">I", body, at)
    at += 4
    return bytes(body[at : at + size]), at + size


def _attributes(body: memoryview, at: int) -> tuple[Attributes, int]:
    (flags,) = struct.unpack_from(">I", body, at)
    at += 4
    size = mode = atime = mtime = None
    if flags & 0x01:
        (size,) = struct.unpack_from(">Q", body, at)
        at += 8
    if flags & 0x02:
        at += 8
    if flags & 0x04:
        (mode,) = struct.unpack_from(">I", body, at)
        at += 4
    if flags & 0x08:
        atime, mtime = struct.unpack_from(">II", body, at)
        at += 8
    if flags & 0x80000000:
        (count,) = struct.unpack_from(">I", body, at)
        at += 4
        for _ in range(2 * count):
            _, at = text_at(body, at)
    return Attributes(size, mode, atime, mtime), at
