"""The single-file archives that a place holds, and one of them as a tar stream.

    archives/HOST/SET/SET-20270131T180000Z.tar.zst.age

The name tells all that a list shows, so that listing reads none of them. Without this program:
`age -d -i KEY FILE | zstd -d | tar -x`.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, cast

import zstandard

from backupgw.kvstore.backends.base import Backend, Reader
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.kvstore.layers.encrypt_age import Key
from backupgw.kvstore.layers.encrypt_streams import open_item

from .archive_writing import BUFFER, TRAILER_MAGIC

FOLDER = "archives"
_FILE = re.compile(r"(?P<set>.+)-(?P<time>\d{8}T\d{6}Z)\.tar\.zst(?P<age>\.age)?\Z")
_MOST_TRAILER = 1 << 16


class Damaged(BackendError):
    """An archive is not what was written."""


@dataclass(frozen=True, slots=True)
class Archive:
    """One of them.

    Attributes:
        item: its path in the place.
        time: when the backup began, UTC.
        size: of the file, in bytes.
    """

    item: str
    host: str
    set: str
    time: datetime
    size: int
    encrypted: bool

    @property
    def id(self) -> str:
        """The time, by which people name it."""
        return stamp(self.time)


def stamp(time: datetime) -> str:
    """Return a time as archives are named by it."""
    return time.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def item_name(host: str, set_name: str, time: datetime, *, encrypted: bool) -> str:
    """Return what an archive is called in a place."""
    file = f"{set_name}-{stamp(time)}.tar.zst{'.age' if encrypted else ''}"
    return f"{FOLDER}/{host}/{set_name}/{file}"


def find(place: Backend, *, host: str | None = None, set_name: str | None = None) -> list[Archive]:
    """Return the archives of a place, oldest first.

    Raises:
        BackendError: the place cannot be listed; a place without any has none.
    """
    found = [
        archive
        for each_host in ([host] if host else _folders(place, FOLDER))
        for each_set in ([set_name] if set_name else _folders(place, f"{FOLDER}/{each_host}"))
        for archive in _archives(place, each_host, each_set)
    ]
    return sorted(found, key=lambda archive: (archive.time, archive.item))


def _folders(place: Backend, folder: str) -> list[str]:
    try:
        return [entry.name for entry in place.list(folder) if entry.directory]
    except ObjectNotFound:
        return []


def _archives(place: Backend, host: str, set_name: str) -> Iterator[Archive]:
    folder = f"{FOLDER}/{host}/{set_name}"
    try:
        for entry in place.list(folder):
            match = _FILE.match(entry.name)
            if match and not entry.directory and match["set"] == set_name:
                yield Archive(
                    item=f"{folder}/{entry.name}",
                    host=host,
                    set=set_name,
                    time=datetime.strptime(match["time"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
                    size=entry.size,
                    encrypted=match["age"] is not None,
                )
    except ObjectNotFound:
        return


class ArchiveReader(io.RawIOBase):
    """The tar stream of an archive; nothing is given out that age has not found genuine.

    Args:
        key: of the archives; None will do where this one is not encrypted.

    Raises:
        Damaged, Undecryptable: from here and from every read.
        ObjectNotFound: it is gone.
    """

    def __init__(self, place: Backend, archive: Archive, key: Key | None) -> None:
        super().__init__()
        self.item = archive.item
        self.taken = 0
        """Bytes of the file that were read so far."""
        if archive.encrypted:
            if key is None:
                raise BackendError(
                    f"{archive.item}: is encrypted, and the key of the archives is not here; "
                    "`backupgw backup keys import` brings it"
                )
            self._source: Reader = open_item(place, key, archive.item, archive.item, 0, None)
        else:
            self._source = place.open_reader(archive.item)
        # Of a few stored bytes zstd may make gigabytes: it gives out no more than is asked for.
        self._inflate = zstandard.ZstdDecompressor().stream_reader(
            cast(IO[bytes], _Stored(self)), read_size=BUFFER, read_across_frames=True
        )
        self._tail = b""
        self._digest = hashlib.sha256()
        self._count = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._ended:
            return 0
        view = memoryview(buffer).cast("B")
        try:
            count = self._inflate.readinto(view)
        except zstandard.ZstdError as error:
            raise Damaged(f"{self.item}: is damaged: {error}") from error
        self._digest.update(view[:count])
        self._count += count
        if not count and len(view):
            self._ended = True
            self._check()
        return count

    def read_stored(self, size: int) -> bytes:
        """Return bytes of the file as it is stored, decrypted; keep its end."""
        piece = self._source.read(min(size, BUFFER))
        self.taken += len(piece)
        self._tail = (self._tail + piece)[-_MOST_TRAILER:] if piece else self._tail
        return piece

    def _check(self) -> None:
        """Compare what came with what was written."""
        # Behind its magic number a trailer has its length and JSON: that number not once more.
        start = self._tail.rfind(TRAILER_MAGIC.to_bytes(4, "little"))
        trailer = self._tail[start:] if start >= 0 else b""
        if int.from_bytes(trailer[4:8], "little") != len(trailer) - 8:
            raise Damaged(f"{self.item}: its end is missing")
        try:
            self.about = json.loads(trailer[8:])
            wanted = (self.about["tar_sha256"], self.about["tar_bytes"])
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{self.item}: its end is damaged") from error
        if wanted != (self._digest.hexdigest(), self._count):
            raise Damaged(f"{self.item}: the content is not what was written")

    def finish(self) -> dict[str, object]:
        """Read what is left, so that all of it is checked; return what its writer knew of it.

        Raises:
            Damaged, Undecryptable: it is not what was written.
        """
        buffer = bytearray(BUFFER)
        while self.readinto(buffer):
            pass
        return dict(self.about)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


class _Stored:
    """What zstd reads from."""

    def __init__(self, archive: ArchiveReader) -> None:
        self._archive = archive

    def read(self, size: int = BUFFER) -> bytes:
        return self._archive.read_stored(size)


def read_tar(stream: ArchiveReader) -> tarfile.TarFile:
    """Return the stream as tar understands it; it holds nothing that would have to be closed.

    Raises:
        Damaged: it is no archive.
    """
    try:
        return tarfile.open(
            fileobj=cast(IO[bytes], stream),
            mode="r|",
            bufsize=BUFFER,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except tarfile.TarError as error:
        raise Damaged(f"{stream.item}: is no archive: {error}") from error


def _next(tar: tarfile.TarFile, item: str) -> tarfile.TarInfo | None:
    """Return the next member, None at the end. Raises Damaged."""
    try:
        return tar.next()
    except tarfile.TarError as error:
        raise Damaged(f"{item}: is damaged: {error}") from error


def members(tar: tarfile.TarFile, stream: ArchiveReader) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive, then check that all of it was what was written.

    Raises:
        Damaged, Undecryptable: it was not; where it is encrypted no damaged byte came before.
    """
    count = 0
    while (member := _next(tar, stream.item)) is not None:
        tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
        yield member
        count += 1
    written = stream.finish()["members"]
    if count != written:
        raise Damaged(f"{stream.item}: has {count} members of {written}")
