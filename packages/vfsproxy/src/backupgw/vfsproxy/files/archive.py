"""Files and folders as one archive, written while it is sent: zip (with Zip64) or tar (pax).

Nothing is stored on the way, and what is held in memory is one piece of one file; a zip also keeps
a few hundred bytes for each file, for the directory at its end. Nothing is compressed: most of what
is worth keeping is already, and a server's time is better spent. Links are not followed, since
listings do not tell them.

A file that shrinks while it is read breaks the archive off: a client that gets the end of an
archive has got all of it.
"""

from __future__ import annotations

import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import ObjectNotFound, ReadRangeError
from backupgw.kvstore.walking import walk

from .refusals import missing

PIECE = 256 << 10
_BLOCK = 512
_RECORD = 20 * _BLOCK
"""Bytes that a tar's length is a multiple of, as tar(1) writes it."""


class Format(StrEnum):
    """How files are put together."""

    ZIP = "zip"
    TAR = "tar"

    @property
    def media_type(self) -> str:
        """What the Content-Type says."""
        return "application/zip" if self is Format.ZIP else "application/x-tar"


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder of the archive.

    Attributes:
        path: in the folder.
        name: in the archive.
    """

    path: str
    name: str
    info: ItemInfo


def members(place: Backend, paths: Sequence[str]) -> Iterator[Member]:
    """Yield files and folders with all that is in them, each under its own last segment.

    Args:
        paths: checked; the empty one is the folder itself, whose content then stands alone.

    Raises:
        FileRefusal: 404, one of them is not there; with the `next` that comes to it.
    """
    taken: set[str] = set()
    for path in paths:
        info = place.info(path)
        if not info.exists:
            raise missing(path)
        last = _free(path.rpartition("/")[2], taken)
        if not info.directory:
            yield Member(path, last, info)
            continue
        if last:
            yield Member(path, last, info)
        cut = len(path) + 1 if path else 0
        for found in walk(place, path):
            if not found.left:
                below = found.path[cut:]
                yield Member(found.path, f"{last}/{below}" if last else below, found.info)


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no earlier one of the archive has: a/x and b/x become x and x (2)."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    taken.add(free)
    return free


def written(place: Backend, found: Iterator[Member], form: Format) -> Iterator[bytes]:
    """Yield the bytes of an archive.

    Raises:
        BackendError: the volume failed; what was sent is no whole archive.
    """
    return _zip(place, found) if form is Format.ZIP else _tar(place, found)


class _Sink:
    """Takes what a ZipFile writes, until it is sent on."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """Return what was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _zip(place: Backend, found: Iterator[Member]) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]  # it never seeks
        for member in found:
            if member.info.directory:
                archive.writestr(_zip_info(f"{member.name}/", member.info), b"")
                continue
            header = _zip_info(member.name, member.info)
            # By the size it knows whether the numbers behind the bytes need 64 bits.
            header.file_size = member.info.size
            with archive.open(header, "w") as file:
                for piece in _bytes(place, member):
                    file.write(piece)
                    yield sink.take()
            yield sink.take()
    yield sink.take()


def _zip_info(name: str, info: ItemInfo) -> zipfile.ZipInfo:
    year, month, day, hour, minute, second, *_ = time.localtime(info.mtime or None)
    moment = (year, month, day, hour, minute, second)
    # What MS-DOS can say; anything else would be refused.
    header = zipfile.ZipInfo(
        name, max((1980, 1, 1, 0, 0, 0), min(moment, (2107, 12, 31, 23, 59, 58)))
    )
    mode = stat.S_IFDIR | 0o755 if info.directory else stat.S_IFREG | 0o644
    header.external_attr = mode << 16 | (0x10 if info.directory else 0)
    return header


def _tar(place: Backend, found: Iterator[Member]) -> Iterator[bytes]:
    total = 0
    for member in found:
        header = tarfile.TarInfo(member.name)
        header.mtime = int(member.info.mtime)
        if member.info.directory:
            header.type, header.mode = tarfile.DIRTYPE, 0o755
        else:
            header.size, header.mode = member.info.size, 0o644
        head = header.tobuf(tarfile.PAX_FORMAT)
        yield head
        total += len(head)
        if not member.info.directory:
            yield from _bytes(place, member)
            padding = -member.info.size % _BLOCK
            if padding:
                yield bytes(padding)
            total += member.info.size + padding
    end = 2 * _BLOCK
    yield bytes(end + -(total + end) % _RECORD)


def _bytes(place: Backend, member: Member) -> Iterator[bytes]:
    """Yield exactly as many bytes of a file as its listing has told."""
    size = member.info.size
    try:
        reader = place.open_reader(member.path, size=size)
    except ObjectNotFound as error:
        raise ReadRangeError(f"{member.path} was removed while it was read") from error
    with reader:
        left = size
        while left and (piece := reader.read(min(PIECE, left))):
            left -= len(piece)
            yield piece
    if left:
        raise ReadRangeError(f"{member.path} became shorter while it was read")
