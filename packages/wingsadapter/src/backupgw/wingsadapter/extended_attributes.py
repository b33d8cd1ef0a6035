"""Extended attributes of files in an archive, as far as they are their owner's own affair.

Tar files carry them as SCHILY.xattr.NAME (star's, and GNU tar's and restic's), and access lists as
SCHILY.acl.access and .default, in words. These and those of users come back; what gives powers
(security.*, trusted.*) does not.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import tarfile

_PREFIX = "SCHILY.xattr."
_IN_WORDS = {
    "SCHILY.acl.access": b"system.posix_acl_access",
    "SCHILY.acl.default": b"system.posix_acl_default",
}
_ENTRY = re.compile(r"(user|group|mask|other):(\d*):([r-][w-][x-])\Z")
_TAGS = {"user": (0x01, 0x02), "group": (0x04, 0x08), "mask": (0x10, 0), "other": (0x20, 0)}
"""linux/posix_acl_xattr.h: the entry of the file's own, and that of a named one."""
_NOBODY = 0xFFFFFFFF
_ACCESS = ("system.posix_acl_access", "system.posix_acl_default")
_NOT_HERE = (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.E2BIG, errno.ERANGE)
"""This file system has none, or none such."""
MOST = 256
"""Of one entry."""


def attributes_of(info: tarfile.TarInfo) -> list[tuple[bytes, bytes]]:
    """Return names and values of those that come back, access lists last."""
    found = []
    for key, value in info.pax_headers.items():
        name = key.removeprefix(_PREFIX)
        if name != key and (name.startswith("user.") or name in _ACCESS) and "\0" not in name:
            found.append((_bytes(name), _bytes(value)))
        elif key in _IN_WORDS and (packed := _access_list(value)) is not None:
            found.append((_IN_WORDS[key], packed))
    return sorted(found, key=lambda each: not each[0].startswith(b"user."))[:MOST]


def set_attributes(descriptor: int, attributes: list[tuple[bytes, bytes]]) -> int:
    """Give a file attributes, after its mode: access lists contain it.

    Returns:
        how many the file system does not take.

    Raises:
        OSError: it is full, or broken.
    """
    refused = 0
    for name, value in attributes:
        try:
            os.setxattr(descriptor, name, value)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            refused += 1
    return refused


def _access_list(text: str) -> bytes | None:
    """Return an access list as the kernel has it; None: it is none, or names users by names."""
    entries = []
    for word in re.split(r"[\n,]", text.strip()):
        match = _ENTRY.match(word.strip())
        if match is None:
            return None
        own, named = _TAGS[match[1]]
        number = int(match[2] or _NOBODY)
        tag = named if match[2] else own
        if not tag or number > _NOBODY:
            return None
        bits = sum(bit for bit, sign in zip((4, 2, 1), match[3], strict=True) if sign != "-")
        entries.append((tag, number, bits))
    # In the kernel's order: by kind, then by number.
    packed = (struct.pack("<HHI", tag, bits, number) for tag, number, bits in sorted(entries))
    return struct.pack("<I", 2) + b"".join(packed)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
