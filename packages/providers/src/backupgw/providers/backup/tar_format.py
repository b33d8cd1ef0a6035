"""The headers of a tar archive in the POSIX format (pax), as GNU tar and bsdtar write and read it.

https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html#tag_20_92_13_01 and, for files
with holes, format 1.0 of https://www.gnu.org/software/tar/manual/html_node/PAX-1.html. Names are
bytes, as they are on disk. Extended attributes are `SCHILY.xattr.NAME`, which both programs know.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BLOCK = 512
END = bytes(2 * BLOCK)
"""What closes an archive."""

XATTR = b"SCHILY.xattr."
TWINS = b"BACKUPGW.twins"
"""Our own keyword, on the first name of a file that has several: others follow as links to it."""

_OCTAL_SIZE = 8 << 30
"""Sizes from here on do not fit into the header's eleven octal digits."""
_MOST_ID = 0o7777777


@dataclass(slots=True)
class Member:
    """What the archive says of one file, folder, link or device.

    Attributes:
        name: relative, without a slash at its end; bytes.
        size: of the content, in bytes, holes included.
        link: where a symbolic link leads; for a hard link the member that it is another name of.
        hard: a hard link.
        data: offset and length of what is not a hole; None for a file without any.
        twins: a file that has further names, which may follow.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    link: bytes = b""
    hard: bool = False
    device: int = 0
    user: str = ""
    group: str = ""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    data: Sequence[tuple[int, int]] | None = None
    twins: bool = False

    @property
    def kind(self) -> bytes:
        """The type flag."""
        if self.hard:
            return b"1"
        return {
            stat.S_IFREG: b"0",
            stat.S_IFLNK: b"2",
            stat.S_IFCHR: b"3",
            stat.S_IFBLK: b"4",
            stat.S_IFDIR: b"5",
            stat.S_IFIFO: b"6",
        }[stat.S_IFMT(self.mode)]


def padding(size: int) -> bytes:
    """Return what fills the last block after `size` bytes."""
    return bytes(-size % BLOCK)


def header(member: Member) -> bytes:
    """Return all that stands before a member's content: records, header, the map of its data."""
    name = member.name + (b"/" if member.kind == b"5" else b"")
    records: dict[bytes, bytes] = {}
    stored, sparse = member.size, b""
    if member.data is not None:
        sparse = _sparse_map(member.data, member.size)
        stored = len(sparse) + sum(length for _, length in member.data)
        # What a program shows that does not know of holes: it is not the file that it seems to be.
        folder, slash, base = name.rpartition(b"/")
        name = folder + slash + b"GNUSparseFile.0/" + base
    prefix = _prefix(name)
    if prefix is None or not name.isascii():
        records[b"path"] = name
        prefix = (b"", name[:100]) if prefix is None else prefix
    if member.data is not None:  # behind the path, which some programs would take for the name
        records[b"GNU.sparse.major"] = b"1"
        records[b"GNU.sparse.minor"] = b"0"
        records[b"GNU.sparse.name"] = member.name
        records[b"GNU.sparse.realsize"] = b"%d" % member.size
    if len(member.link) > 100 or not member.link.isascii():
        records[b"linkpath"] = member.link
    if member.mtime_ns % 1_000_000_000 or not 0 <= member.mtime_ns < _OCTAL_SIZE * 1_000_000_000:
        records[b"mtime"] = _seconds(member.mtime_ns)
    for key, number in ((b"uid", member.uid), (b"gid", member.gid)):
        if not 0 <= number <= _MOST_ID:
            records[key] = b"%d" % number
    for key, text in ((b"uname", member.user), (b"gname", member.group)):
        if not text.isascii() or len(text) > 31:
            records[key] = text.encode()
    if stored >= _OCTAL_SIZE and member.data is None:
        records[b"size"] = b"%d" % stored
    if member.twins:
        records[TWINS] = b"1"
    for xattr, value in sorted(member.xattrs.items()):
        records[XATTR + xattr.encode("utf-8", "surrogateescape")] = value
    extended = _extended(records, member) if records else b""
    return extended + _ustar(member, member.kind, prefix, stored) + sparse


def _extended(records: Mapping[bytes, bytes], member: Member) -> bytes:
    body = b"".join(_record(key, value) for key, value in records.items())
    folder, slash, base = member.name.rpartition(b"/")
    name = (folder[:60] + slash + b"PaxHeaders/" + base[:20]).rstrip(b"/")
    about = Member(name[:100], stat.S_IFREG | 0o644, 0, 0, member.mtime_ns)
    return _ustar(about, b"x", (b"", about.name), len(body)) + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """Return "LENGTH key=value\\n", where LENGTH counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _seconds(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    whole, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return sign + b"%d.%09d" % (whole, rest)


def _sparse_map(data: Sequence[tuple[int, int]], size: int) -> bytes:
    spans = list(data)
    if not spans or sum(spans[-1]) < size:
        spans.append((size, 0))  # the hole at the end
    text = b"%d\n" % len(spans) + b"".join(b"%d\n%d\n" % span for span in spans)
    return text + padding(len(text))


def _prefix(name: bytes) -> tuple[bytes, bytes] | None:
    """Return a name as the header's two fields have it; None where it does not fit."""
    if len(name) <= 100:
        return b"", name
    for at in range(min(len(name) - 2, 155), 0, -1):
        if name[at : at + 1] == b"/" and len(name) - at - 1 <= 100:
            return name[:at], name[at + 1 :]
    return None


def _ustar(member: Member, kind: bytes, prefix: tuple[bytes, bytes], size: int) -> bytes:
    device = kind in (b"3", b"4")
    content = size if kind in (b"0", b"x") else 0
    seconds = min(max(0, member.mtime_ns // 1_000_000_000), _OCTAL_SIZE - 1)
    fields = (
        prefix[1].ljust(100, b"\0"),
        _octal(stat.S_IMODE(member.mode), 8),
        _octal(_small(member.uid), 8),
        _octal(_small(member.gid), 8),
        _size(content),
        _octal(seconds, 12),
        b" " * 8,
        kind,
        member.link[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        member.user.encode("ascii", "ignore")[:31].ljust(32, b"\0"),
        member.group.encode("ascii", "ignore")[:31].ljust(32, b"\0"),
        _octal(os.major(member.device) if device else 0, 8),
        _octal(os.minor(member.device) if device else 0, 8),
        prefix[0].ljust(155, b"\0"),
    )
    block = bytearray(b"".join(fields).ljust(BLOCK, b"\0"))
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _small(number: int) -> int:
    return number if 0 <= number <= _MOST_ID else 0


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def _size(size: int) -> bytes:
    """Return the size's field: in octal, or in binary with the first bit set, as GNU tar has it."""
    if size < _OCTAL_SIZE:
        return _octal(size, 12)
    return b"\x80" + size.to_bytes(11, "big")
