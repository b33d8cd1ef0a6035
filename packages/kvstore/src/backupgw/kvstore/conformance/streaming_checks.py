"""Bounded memory, and every size of value."""

from __future__ import annotations

import hashlib

from ..backends.base import CHUNK, Reader
from . import values
from .memory import measured
from .subject import ALLOWED, Ground
from .suite import check
from .verdicts import require

_EDGES = (values.PIECE, CHUNK, 2 * CHUNK, 4 * CHUNK)
_SIZES = (0, 1, 2, *(edge + around for edge in _EDGES for around in (-1, 0, 1)))


@check()
def every_size_comes_back(at: Ground) -> str:
    """Values of 0 and 1 byte and around the borders of buffers come back whole."""
    for size in _SIZES:
        value = values.make(size, size) if size >= 16 else bytes(range(size))
        name = at.put("item", value)
        info = at.backend.info(name)
        require(info.exists and info.size == size, f"{size} bytes are told as {info.size}")
        require(at.get("item") == value, f"a value of {size} bytes came back changed")
    return f"{len(_SIZES)} sizes up to {max(_SIZES)} bytes"


@check()
def any_write_pieces(at: Ground) -> None:
    """Pieces of any size and kind add up, and their buffers may be reused afterwards."""
    buffer = bytearray(b"abc" * 1000)
    with at.backend.open_writer(at.name("item")) as writer:
        writer.write(b"")
        writer.write(buffer)
        buffer[:] = b"x" * len(buffer)
        writer.write(memoryview(b"..middle..")[2:8])
        for byte in b"one by one":
            writer.write(bytes([byte]))
    require(at.get("item") == b"abc" * 1000 + b"middle" + b"one by one", "pieces did not add up")


@check("streaming")
def big_value_in_bounded_memory(at: Ground) -> str:
    """A large value (64 MiB) is written and read in pieces without being held in memory."""
    name = at.name("big")
    large = at.subject.large
    expected = values.stream_hash(large)
    with measured() as written, at.backend.open_writer(name, size=large) as writer:
        for piece in values.stream(large):
            writer.write(piece)
    # What stays is the place's own (it may live in memory); what came on top was a buffer.
    require(written.peak - written.kept <= ALLOWED, f"writing took {written.on_top}")
    with measured() as read, at.backend.open_reader(name) as reader:
        require(_hash(reader) == expected, "the value came back changed")
    require(read.peak <= ALLOWED, f"reading took {read.on_top}")
    with measured() as hashed:
        require(at.backend.hash(name) == expected, "hash() is wrong")
    require(hashed.peak <= ALLOWED, f"hashing took {hashed.on_top}")
    at.backend.delete(name)
    return f"at most {max(written.peak - written.kept, read.peak, hashed.peak) >> 10} KiB"


@check("streaming")
def copies_in_bounded_memory(at: Ground) -> None:
    """copy and defrag of a large value (64 MiB) hold none in memory."""
    name = at.name("big")
    large = at.subject.large
    with at.backend.open_writer(name, size=large) as writer:
        for piece in values.stream(large):
            writer.write(piece)
    with measured() as copied:
        at.backend.copy(name, at.name("copy"))
    require(copied.peak - copied.kept <= ALLOWED, f"copying took {copied.on_top}")
    at.backend.delete(at.name("copy"))
    with measured() as joined:
        at.backend.defrag([(name, 0, large)], at.name("joined"))
    require(joined.peak - joined.kept <= ALLOWED, f"defrag took {joined.on_top}")
    require(at.backend.info(at.name("joined")).size == large, "defrag lost bytes")
    at.backend.delete(at.name("joined"))
    at.backend.delete(name)


@check("streaming")
def deleted_value_leaves_no_memory(at: Ground) -> None:
    """Nothing of a large value (64 MiB) stays in memory once it was deleted."""
    with measured() as all_in_all:
        with at.backend.open_writer(at.name("big")) as writer:
            for piece in values.stream(at.subject.large):
                writer.write(piece)
        with at.backend.open_reader(at.name("big")) as reader:
            _hash(reader)
        at.backend.delete(at.name("big"))
    require(all_in_all.kept <= ALLOWED, f"{all_in_all.kept >> 20} MiB stayed in memory")


def _hash(reader: Reader) -> str:
    digest = hashlib.sha256()
    while chunk := reader.read(values.PIECE):
        digest.update(chunk)
    return digest.hexdigest()
