"""Parts of items, as `gather` and `defrag` take them: checking, reading, joining."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .backends._base import Source, validate_sources
from .backends.base import CHUNK, Backend
from .backends.errors import BackendError, ReadRangeError
from .utils import hashing

Part = Source
"""(name, offset in bytes, size in bytes) of a part of an item."""


def checked(sources: Iterable[object]) -> list[Part]:
    """Return sources as a list of parts; they often come from JSON.

    Raises:
        ValueError: one is no (name, offset, size), or its name is not a single segment.
    """
    parts = validate_sources(sources)
    for name, _, _ in parts:
        if "/" in name:
            raise ValueError(f"a source's namespace is given separately: {name!r}")
    return parts


def chunks(backend: Backend, parts: Sequence[Part]) -> Iterator[bytes]:
    """Yield the parts' bytes in order, in chunks of bounded size.

    Raises:
        ReadRangeError: an item ends before its part does.
    """
    for name, offset, size in parts:
        with backend.open_reader(name, offset=offset, size=size) as reader:
            if reader.remaining != size:
                raise ReadRangeError(f"{name}: {reader.remaining} of {size} bytes at {offset}")
            while chunk := reader.read(CHUNK):
                yield chunk


def hash_of(backend: Backend, parts: Sequence[Part], algorithm: str) -> str:
    """Return the hex digest of the parts' concatenation; errors as `chunks` and `hashing.new`."""
    digest = hashing.new(algorithm)
    for chunk in chunks(backend, parts):
        digest.update(chunk)
    return digest.hexdigest()


def write_verified(
    backend: Backend, parts: Sequence[Part], target: str, algorithm: str, expected: str
) -> None:
    """Write the parts' concatenation as `target` if it still has the hash `expected`.

    Raises:
        BackendError: (retryable) a source was replaced since it was hashed; nothing is written.
    """
    digest = hashing.new(algorithm)
    with backend.open_writer(target, size=sum(size for _, _, size in parts)) as writer:
        for chunk in chunks(backend, parts):
            writer.write(chunk)
            digest.update(chunk)
        if digest.hexdigest() != expected:
            raise BackendError(f"{target}: a source was replaced meanwhile", retryable=True)
