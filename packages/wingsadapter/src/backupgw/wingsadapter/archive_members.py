"""A tar file read from its beginning to its end: each entry with its content, believed in nothing.

It may be packed by gzip, whose checksums are looked at; it may say to be small and unpack to
terabytes, for which there are limits; its paths may lead anywhere, and then it is refused.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import IO, Any, Protocol

from .archive import PIECE, ArchiveError

MAX_DEPTH = 1000
"""Names in one path; the kernel's own limit is about 2,000."""


class Source(Protocol):
    """Where an archive is read from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


@dataclass(frozen=True)
class Limits:
    """How much may come out of an archive; None for any amount."""

    content: int | None = None
    entries: int | None = None


ANY = Limits()


def can_be_unpacked(info: tarfile.TarInfo) -> bool:
    """Return whether an entry is a file, a folder, or a link of either kind."""
    return info.isreg() or info.isdir() or info.issym() or info.islnk()


def names_of(info: tarfile.TarInfo) -> tuple[bytes, ...]:
    """Return the names that lead to an entry; see `split_path`."""
    return split_path(info.name)


def split_path(path: str) -> tuple[bytes, ...]:
    """Return the names in a path of an archive.

    Raises:
        ArchiveError: it leads out of the folder that the archive is unpacked into, or nowhere.
    """
    raw = path.encode(errors="surrogateescape")
    names = tuple(name for name in raw.split(b"/") if name not in (b"", b"."))
    if raw.startswith(b"/") or b".." in names or b"\0" in raw or len(names) > MAX_DEPTH:
        raise ArchiveError(f"the archive has a path that leads out of it: {path[:200]!r}")
    if any(len(name) > 255 for name in names):
        raise ArchiveError(f"the archive has a name that no file can have: {path[:200]!r}…")
    return names


def moment_of(info: tarfile.TarInfo) -> int:
    """Return when an entry was changed, in nanoseconds; 0 where the archive talks nonsense."""
    try:
        return int(Decimal(info.pax_headers.get("mtime") or info.mtime) * 10**9)
    except (ArithmeticError, ValueError):
        return 0


class _Unpacker:
    """What gzip holds, piece by piece, members one after the other, each with its checksum."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._gzip = zlib.decompressobj(wbits=31)
        self._rest = b""
        self._begun = False
        self._ended = False
        self.finished = False

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end alone."""
        parts: list[bytes] = []
        while size > 0:
            part = self._some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def drain(self) -> None:
        """Read to the end, so that the checksum is looked at. Bounded by what is stored there."""
        left = 64 << 20
        while part := self._some(PIECE):
            left -= len(part)
            if left < 0:
                raise ArchiveError("the archive goes on behind its end")

    def _some(self, size: int) -> bytes:
        while not self.finished:
            if self._gzip.eof:
                self._rest = self._gzip.unused_data or self._source.read(PIECE)
                if not self._rest:
                    self.finished = True
                    break
                self._gzip = zlib.decompressobj(wbits=31)
                self._begun = False
            data = self._gzip.unconsumed_tail or self._rest
            self._rest = b""
            if not data:
                data = self._source.read(PIECE)
                if not data:
                    raise ArchiveError("the archive ends in the middle")
            self._begun = True
            try:
                part = self._gzip.decompress(data, size)
            except zlib.error as error:
                raise ArchiveError(f"the archive is damaged: {error}") from error
            if part:
                return part
        return b""


class _Plain:
    """What is not compressed, with the same face."""

    def __init__(self, source: Source) -> None:
        self.read = source.read

    def drain(self) -> None:
        """Read what is behind the end of the archive."""
        while self.read(PIECE):
            pass


def members(
    source: Source, limits: Limits, *, packed: bool = True
) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Yield each entry with its content, and at the end make sure that the archive is whole."""
    unpacker = _Unpacker(source) if packed else _Plain(source)
    content = entries = 0
    options: dict[str, Any] = {"mode": "r|", "fileobj": unpacker, "bufsize": PIECE}
    options |= {"encoding": "utf-8", "errors": "surrogateescape"}
    try:
        with tarfile.open(**options) as tar:
            for info in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # it would remember every entry
                entries += 1
                content += max(info.size, 0)
                if limits.entries is not None and entries > limits.entries:
                    raise ArchiveError(f"the archive has more than {limits.entries} entries")
                if limits.content is not None and content > limits.content:
                    raise ArchiveError(
                        f"the archive unpacks to more than the {limits.content} bytes there are"
                    )
                if info.isreg() and info.sparse is not None:
                    raise ArchiveError(f"{info.name!r} is sparse, which is not understood")
                file = tar.extractfile(info) if info.isreg() else None
                yield info, _pieces(file, info)
        unpacker.drain()
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, RecursionError) as error:
        raise ArchiveError(f"the archive is damaged: {error}") from error


def _pieces(file: IO[bytes] | None, info: tarfile.TarInfo) -> Iterator[bytes]:
    left = info.size if file is not None else 0
    while left:
        assert file is not None
        try:
            piece = file.read(min(left, PIECE))
        except (tarfile.TarError, EOFError) as error:
            raise ArchiveError(f"the archive is damaged: {error}") from error
        if not piece:
            raise ArchiveError("the archive ends in the middle of a file")
        left -= len(piece)
        yield piece
