"""The bytes of an upload on their way into a volume: what every request carries on.

Two ways. A volume with checkpoints (`Capabilities.resumable_write`) keeps an unfinished value
itself, next to where it will be, under no name that anybody can list; the last request gives it its
name. On any other volume each request leaves an item of its own in the staging area, and the last
one writes the file from these.

All of this blocks, and one body belongs to one request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backupgw.kvstore.backends.base import CHUNK, Backend, Writer
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound

from ..files.parents import check_parents
from ..files.refusals import exists
from .records import Kind, Piece, State, Upload

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Space:
    """Where the bytes of a folder's uploads lie.

    Attributes:
        items: the folder: its files, by their paths.
        staging: what nobody lists. It counts towards the same quotas.
    """

    items: Backend
    staging: Backend

    def target(self, upload: Upload) -> tuple[Backend, str]:
        """Return where the finished bytes of an upload get which name."""
        if upload.kind is Kind.PARTIAL:
            return self.staging, f"{upload.id}/whole"
        return self.items, upload.name


class Body(ABC):
    """An unfinished upload that is open for more."""

    def __init__(self, space: Space, upload: Upload) -> None:
        self._space = space
        self._upload = upload

    @property
    @abstractmethod
    def offset(self) -> int:
        """Bytes that the volume was given so far."""

    @abstractmethod
    def write(self, data: bytes | memoryview) -> None:
        """Take more. Raises BackendError; `keep` may still save what came before."""

    @abstractmethod
    def keep(self) -> Upload:
        """Make it durable; return the upload as it stands. Ends the body."""

    @abstractmethod
    def finish(self) -> Upload:
        """Give the file its name. Ends the body, but for ObjectExists, after which it is kept.

        Raises:
            ObjectExists: there is one, which is not to be replaced.
        """

    @abstractmethod
    def abort(self) -> None:
        """Let go without keeping anything. Never raises."""


class CheckpointedBody(Body):
    """On a volume that carries writes on."""

    def __init__(self, space: Space, upload: Upload, writer: Writer) -> None:
        super().__init__(space, upload)
        self._writer = writer

    @property
    def offset(self) -> int:
        return self._writer.offset

    def write(self, data: bytes | memoryview) -> None:
        self._writer.write(data)

    def keep(self) -> Upload:
        offset = self._writer.offset
        token = self._writer.checkpoint()
        return dataclasses.replace(self._upload, state=State.OPEN, offset=offset, token=token)

    def finish(self) -> Upload:
        size = self._writer.offset
        self._writer.commit()
        pieces: tuple[Piece, ...] = ()
        if self._upload.kind is Kind.PARTIAL:
            pieces = whole_piece(self._space, dataclasses.replace(self._upload, length=size))
        return dataclasses.replace(
            self._upload, state=State.DONE, offset=size, token=None, pieces=pieces
        )

    def abort(self) -> None:
        self._writer.abort()


class PiecedBody(Body):
    """On a volume that does not.

    Args:
        attempt: differs from that of every other request for this upload.
    """

    def __init__(self, space: Space, upload: Upload, attempt: str) -> None:
        super().__init__(space, upload)
        self._name = f"{upload.id}/{attempt}"
        self._writer: Writer | None = None
        self._before = upload.offset
        self._written = 0

    @property
    def offset(self) -> int:
        return self._before + self._written

    def write(self, data: bytes | memoryview) -> None:
        if self._writer is None:
            self._writer = self._space.staging.open_writer(self._name)
        self._writer.write(data)
        self._written += memoryview(data).nbytes

    def keep(self) -> Upload:
        pieces = self._upload.pieces
        if self._writer is not None and self._written:
            self._writer.commit()
            pieces = (*pieces, Piece(self._name, self._written))
        self.abort()
        return dataclasses.replace(
            self._upload, state=State.OPEN, offset=self.offset, pieces=pieces
        )

    def finish(self) -> Upload:
        kept = self._upload = self.keep()
        self._before, self._written = kept.offset, 0
        if kept.kind is not Kind.PARTIAL:
            join(self._space, kept.pieces, kept.name, overwrite=kept.overwrite)
            remove_staged(self._space, kept)
            kept = dataclasses.replace(kept, pieces=())
        return dataclasses.replace(kept, state=State.DONE)

    def abort(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()


def open_body(space: Space, upload: Upload, attempt: str) -> Body:
    """Open an upload for more.

    Args:
        attempt: differs from that of every other request for this upload.

    Raises:
        ObjectNotFound: the volume has lost what was kept, or has given it its name.
        QuotaExceeded: there is no room for it.
        BackendError: the volume failed.
    """
    place, name = space.target(upload)
    if upload.token is not None:
        return CheckpointedBody(space, upload, place.resume_writer(upload.token))
    if not place.capabilities.resumable_write:
        return PiecedBody(space, upload, attempt)
    # A length that is told later cannot be checked by the volume, and need not be.
    writer = place.open_writer(name, size=upload.length, if_absent=not upload.overwrite)
    return CheckpointedBody(space, upload, writer)


def keep_room(space: Space, upload: Upload) -> None:
    """Have the volume keep the room of an upload that the store knows by now. Idempotent.

    Raises:
        BackendError: it could not be told; the room may be somebody else's once this process ends.
    """
    if upload.token is not None:
        place, _ = space.target(upload)
        place.keep_writer(upload.token)


def whole_piece(space: Space, upload: Upload) -> tuple[Piece, ...]:
    """Return the piece that a complete partial upload is, on a volume that carries writes on."""
    assert upload.length is not None
    return (Piece(space.target(upload)[1], upload.length),)


def check_target(space: Space, upload: Upload) -> None:
    """Refuse an upload to where a file, or something that is no folder, is in the way.

    Raises:
        FileRefusal: 409.
        BackendError: the volume failed.
    """
    info = space.items.info(upload.name)
    if info.exists and (info.directory or not upload.overwrite):
        raise exists(upload.name)
    if not info.exists:
        check_parents(space.items, upload.name)


def ended(space: Space, upload: Upload, *, lost: bool = False) -> bool:
    """Whether an upload that was found `ENDING` has got its name already: its request died after
    that, and could not say so.

    Args:
        lost: the volume no longer has its checkpoint.
    """
    place, name = space.target(upload)
    if place.capabilities.resumable_write:
        # A checkpoint will tell, unless it is of nothing: then it is good until its room is used.
        if not lost and (upload.offset or upload.overwrite):
            return False
    elif upload.overwrite and all(space.staging.info(each.name).exists for each in upload.pieces):
        return False  # what is there may be what is to be replaced
    info = place.info(name)
    return info.exists and not info.directory and info.size == upload.length


def join(space: Space, pieces: Iterable[Piece], name: str, *, overwrite: bool) -> None:
    """Write the file `name` from items of the staging area, which stay.

    Raises:
        ObjectExists: there is one, which is not to be replaced; nothing was written.
        ObjectNotFound: a piece is gone.
    """
    pieces = list(pieces)
    size = sum(piece.size for piece in pieces)
    with space.items.open_writer(name, size=size, if_absent=not overwrite) as writer:
        for piece in pieces:
            with space.staging.open_reader(piece.name) as reader:
                if reader.item_size != piece.size:
                    raise ObjectNotFound(f"{piece.name} is not what it was")
                while chunk := reader.read(CHUNK):
                    writer.write(chunk)


def forget(space: Space, upload: Upload) -> None:
    """Remove what the volume has of an upload that will not be carried on. Idempotent.

    Raises:
        BackendError: the volume failed; it may be asked again.
    """
    if upload.token is not None:
        place, _ = space.target(upload)
        place.abort_writer(upload.token)
    remove_staged(space, upload)


def remove_staged(space: Space, upload: Upload) -> None:
    """Remove the items of an upload in the staging area, and those that a request left there which
    died before it could say so. Idempotent.

    Raises:
        BackendError: the volume failed.
    """
    place, _ = space.target(upload)
    if not upload.pieces and upload.kind is not Kind.PARTIAL and place.capabilities.resumable_write:
        return  # there never were any
    staging = space.staging
    for name in _staged(staging, upload):
        with contextlib.suppress(ObjectNotFound):
            staging.delete(name)
    with contextlib.suppress(ObjectNotFound):
        try:
            staging.rmdir(upload.id)
        except ObjectNotFound:
            raise
        except BackendError as error:
            if error.retryable:
                raise
            logger.debug("%s: %s", upload.id, error)  # a dying request's writer is in it


def _staged(staging: Backend, upload: Upload) -> Sequence[str]:
    try:
        listed = [f"{upload.id}/{info.name}" for info in staging.list(upload.id)]
    except ObjectNotFound:
        listed = []
    return sorted({*listed, *(piece.name for piece in upload.pieces)})
