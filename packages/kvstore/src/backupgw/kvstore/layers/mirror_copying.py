"""Copying one item from place to place, and telling which copies are the same."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..backends.base import CHUNK, Reader, Writer
from ..backends.errors import BackendError, UnsupportedOperation
from .mirror_places import Place, PlaceTimeout

logger = logging.getLogger(__name__)

SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def set_aside(name: str, place: Place) -> bool:
    """Quarantine an item at one place; return whether the place can."""
    try:
        kept = place.call(lambda backend: backend.quarantine(name))
    except UnsupportedOperation:
        return False
    logger.warning("%s: kept as %s at %s", name, kept, place)
    return True


def digest_of(name: str, place: Place) -> str:
    """Return the SHA-256 of an item, read in steps that the place has `patience` for."""
    digest = hashlib.sha256()
    for chunk in _chunks(name, place, lambda _: None):
        digest.update(chunk)
    return digest.hexdigest()


def copy(name: str, sources: Sequence[Place], target: Place) -> None:
    """Copy an item from the first source whose copy is whole.

    Where the name is a SHA-256 and one copy has it, no other copy is taken.

    Raises:
        BackendError: the target failed, or no source could be read.
    """
    wanted = name.rpartition("/")[2]
    proving = bool(SHA256.match(wanted)) and len(sources) > 1
    unproved: Place | None = None
    failure: BackendError | None = None
    for source in sources:
        try:
            if _copied(name, source, target, wanted if proving else None):
                return
            unproved = unproved or source
        except _SourceFailed as failed:
            failure = failure or failed.error
    if unproved is not None and failure is None:
        _copied(name, unproved, target, None)  # no copy has its name for a hash: names are others
        return
    raise failure or BackendError(f"{name}: nothing to copy from", retryable=True)


class _SourceFailed(Exception):
    def __init__(self, error: BackendError) -> None:
        super().__init__(str(error))
        self.error = error


def _copied(name: str, source: Place, target: Place, wanted: str | None) -> bool:
    """Copy an item; return False, and store nothing, if it has not got the `wanted` SHA-256."""
    digest = hashlib.sha256()
    writer: Writer | None = None
    sizes: list[int] = []
    try:
        chunks = _chunks(name, source, sizes.append)
        while True:
            try:
                chunk = next(chunks, None)
            except BackendError as error:
                raise _SourceFailed(error) from error
            if writer is None:
                writer = target.call(lambda backend: backend.open_writer(name, size=sizes[0]))
            if chunk is None:
                break
            digest.update(chunk)
            _on(target, writer, partial(_write, chunk))
        if wanted is not None and digest.hexdigest() != wanted:
            target.call(lambda _: writer.abort())
            return False
        _on(target, writer, lambda writer: writer.commit())
    except BaseException as error:
        if writer is not None and not isinstance(error, PlaceTimeout):
            writer.abort()
        raise
    return True


def _write(chunk: bytes, writer: Writer) -> None:
    writer.write(chunk)


def _on(target: Place, writer: Writer, work: Callable[[Writer], None]) -> None:
    target.call(lambda _: work(writer))


def _chunks(name: str, place: Place, tell_size: Callable[[int], None]) -> Iterator[bytes]:
    """Yield an item's bytes, in steps that the place has `patience` for."""
    reader: Reader = place.call(lambda backend: backend.open_reader(name))
    try:
        tell_size(reader.item_size)
        while chunk := place.call(lambda _: reader.read(CHUNK)):
            yield chunk
    except PlaceTimeout:
        raise
    except BaseException:
        reader.close()
        raise
    else:
        reader.close()
