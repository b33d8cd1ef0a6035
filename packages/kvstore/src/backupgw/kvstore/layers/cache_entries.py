"""How an item lies in a cache: its bytes, then checksums that tell when they are damaged.

    bytes · CRC-32 of each block of 64 KiB · size (8 bytes) · CRC-32 of the checksums and size (4)
    · "bgwcache1" and three zero bytes

A cache lies on whatever disk was at hand, and nobody checks it; a damaged entry must read as none.
A range needs only the blocks that it touches.
"""

from __future__ import annotations

import struct
import zlib

from ..backends.base import Backend, Reader, Writer
from ..backends.errors import BackendError

BLOCK = 1 << 16

_FOOTER = struct.Struct("<QI12s")
_MAGIC = b"bgwcache1\0\0\0"
_CHECKSUM = struct.Struct("<I")


class EntryDamaged(BackendError):
    """What lies in the cache is not what was put there."""


def entry_size(size: int) -> int:
    """Return the bytes that an item of `size` bytes takes in a cache."""
    return size + _CHECKSUM.size * _blocks(size) + _FOOTER.size


def item_size(size: int) -> int:
    """Return the size of the item in an entry of `size` bytes; 0 for what is none."""
    rest = size - _FOOTER.size
    if rest <= 0:
        return 0
    blocks = -(-rest // (BLOCK + _CHECKSUM.size))
    return max(0, rest - blocks * _CHECKSUM.size)


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


class EntryWriter:
    """Writes an item as an entry.

    Args:
        writer: the cache backend's; ended by `commit` or `abort`.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._size = 0
        self._checksum = 0
        self._checksums = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take all of `data`. Raises what the cache backend raises."""
        view = memoryview(data).cast("B")
        self._writer.write(view)
        while view:
            part = view[: BLOCK - self._size % BLOCK]
            self._checksum = zlib.crc32(part, self._checksum)
            self._size += len(part)
            view = view[len(part) :]
            if self._size % BLOCK == 0:
                self._end_block()

    def _end_block(self) -> None:
        self._checksums += _CHECKSUM.pack(self._checksum)
        self._checksum = 0

    @property
    def size(self) -> int:
        return self._size

    def commit(self) -> None:
        if self._size % BLOCK:
            self._end_block()
        self._writer.write(bytes(self._checksums) + _footer(bytes(self._checksums), self._size))
        self._writer.commit()

    def abort(self) -> None:
        self._writer.abort()


def _footer(checksums: bytes, size: int) -> bytes:
    return _FOOTER.pack(size, zlib.crc32(checksums + size.to_bytes(8, "little")), _MAGIC)


class EntryReader(Reader):
    """Reads a range of the item in an entry, each block checked before any of it is given out.

    Raises EntryDamaged (in `read`, too), ObjectNotFound, and what the cache backend raises.
    """

    def __init__(self, backend: Backend, name: str, offset: int, size: int | None) -> None:
        self._name = name
        self._reader = backend.open_reader(name)
        try:
            entry = self._reader.item_size
            self.item_size = item_size(entry)
            if entry != entry_size(self.item_size):
                raise EntryDamaged(f"{name}: no whole entry of a cache")
            start = max(0, self.item_size + offset) if offset < 0 else min(offset, self.item_size)
            end = self.item_size if size is None else min(self.item_size, start + size)
            self._position = start
            self.remaining = max(0, end - start)
            self._at = start - start % BLOCK
            self._data = b""
            self._whole = _all(self._reader) if entry <= BLOCK else b""
            self._checksums = self._read_checksums(backend, entry)
            if not self._whole and self._at:
                self._reader.close()
                self._reader = self._part(backend, entry, self._at)
        except BaseException:
            self._reader.close()
            raise

    def _part(self, backend: Backend, entry: int, offset: int) -> Reader:
        reader = backend.open_reader(self._name, offset=offset)
        if reader.item_size != entry:
            reader.close()
            raise EntryDamaged(f"{self._name}: replaced meanwhile")
        return reader

    def _read_checksums(self, backend: Backend, entry: int) -> bytes:
        """Return the blocks' checksums; raise EntryDamaged where they are damaged themselves."""
        if self._whole:
            ending = self._whole[self.item_size :]
        else:
            with self._part(backend, entry, self.item_size) as table:
                ending = _all(table)
        checksums = ending[: -_FOOTER.size]
        if ending[-_FOOTER.size :] != _footer(checksums, self.item_size):
            raise EntryDamaged(f"{self._name}: its checksums are damaged")
        return checksums

    @property
    def position(self) -> int:
        """Offset in the item of what is read next."""
        return self._position

    def read(self, size: int) -> bytes:
        want = min(size, self.remaining)
        if want <= 0:
            return b""
        skip = self._position - self._at
        if skip >= len(self._data):
            self._at += len(self._data)
            self._data = self._block()
            skip = self._position - self._at
        data = self._data[skip : skip + want]
        self._position += len(data)
        self.remaining -= len(data)
        return data

    def _block(self) -> bytes:
        """Read and check the block at `_at`."""
        want = min(BLOCK, self.item_size - self._at)
        parts = [self._whole[self._at : self._at + want]] if self._whole else []
        want -= len(parts[0]) if parts else 0
        while want:
            part = self._reader.read(want)
            if not part:
                raise EntryDamaged(f"{self._name}: ends too early")
            parts.append(part)
            want -= len(part)
        block = b"".join(parts)
        (checksum,) = _CHECKSUM.unpack_from(self._checksums, self._at // BLOCK * _CHECKSUM.size)
        if zlib.crc32(block) != checksum:
            raise EntryDamaged(f"{self._name}: damaged at {self._at}")
        return block

    def close(self) -> None:
        self._reader.close()
        self.remaining = 0


def _all(reader: Reader) -> bytes:
    return b"".join(iter(lambda: reader.read(1 << 20), b""))
