"""A value on its way into Dropbox: one request, or a session that takes the bytes in order.

(https://www.dropbox.com/developers/documentation/http/documentation#files-upload_session-start)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dropbox import files

from .errors import BackendError, ObjectExists, ObjectNotFound
from .part_transfers import Part, ResumableTarget, SentPart
from .plan import Plan

if TYPE_CHECKING:
    from .dropbox import Dropbox

BLOCK = 4 << 20
"""Bytes of which Dropbox's hash takes a hash each; sessions like multiples of it."""

_BEYOND = 1 << 60
"""An offset that no session has."""


class DropboxTarget(ResumableTarget):
    """One value.

    Args:
        place: where to.
        plan: what `open_writer` was told.
        path: of the item, as Dropbox has it.
    """

    parallel = 1  # a session takes bytes at its own offset alone

    def __init__(self, place: Dropbox, plan: Plan, path: str) -> None:
        self._place = place
        self._plan = plan
        self._path = path
        self._hashes: dict[int, bytes] = {}
        """Hashes of the blocks of each part."""
        self._replaces = False

    def part_size(self, number: int) -> int:  # noqa: ARG002 - all are alike
        return self._place.part_size

    def put_whole(self, data: bytes | bytearray) -> None:
        self._place.namesakes.check_place(self._plan.name)
        self._hashes = {1: _hashes(data)}
        whole = bytes(data)
        self._put(lambda mode: self._upload(whole, mode))

    def _upload(self, data: bytes, mode: files.WriteMode) -> None:
        with self._place.calls.translated(self._plan.name):
            self._place.calls.client().files_upload(
                data,
                self._path,
                mode=mode,
                mute=True,
                strict_conflict=True,
                content_hash=self._content_hash(),
            )

    def _put(self, send: Callable[[files.WriteMode], None]) -> None:
        """Add the file; where there is one already, see whether it may be replaced.

        Most items are new, so looking first would cost each of them a request.
        """
        if not self._replaces:
            try:
                send(files.WriteMode.add)
            except ObjectExists:
                self._place.namesakes.check_replaced(self._plan.name)
                if self._plan.if_absent:
                    raise
                self._replaces = True
        if self._replaces:
            send(files.WriteMode.overwrite)

    def begin(self) -> str:
        self._place.namesakes.check_place(self._plan.name)
        with self._place.calls.translated(self._plan.name):
            started = self._place.calls.client().files_upload_session_start(b"")
            return str(started.session_id)

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        hashes = _hashes(data)
        cursor = files.UploadSessionCursor(state, part.offset)
        try:
            with self._place.calls.translated(self._plan.name):
                self._place.calls.client().files_upload_session_append_v2(
                    bytes(data), cursor, content_hash=hashlib.sha256(hashes).hexdigest()
                )
        except WrongOffset as error:
            # An attempt whose answer was lost has brought it there.
            if error.offset != part.offset + part.size:
                raise
        self._hashes[part.number] = hashes
        return ""

    def complete(self, state: str, parts: Sequence[SentPart]) -> None:
        cursor = files.UploadSessionCursor(state, sum(part.size for part in parts))
        self._put(lambda mode: self._finish(cursor, mode))

    def _finish(self, cursor: files.UploadSessionCursor, mode: files.WriteMode) -> None:
        commit = files.CommitInfo(self._path, mode=mode, mute=True, strict_conflict=True)
        with self._place.calls.translated(self._plan.name):
            self._place.calls.client().files_upload_session_finish(b"", cursor, commit)

    def abandon(self, state: str) -> None:
        """Do nothing: Dropbox forgets sessions after seven days, and they cost nothing."""

    def landed(self, state: str | None, size: int) -> bool:  # noqa: ARG002 - the hash tells more
        if sorted(self._hashes) != list(range(1, len(self._hashes) + 1)):
            return False  # carried on from a checkpoint: the hash is not known
        there = self._place.metadata(self._plan.name)
        return isinstance(there, files.FileMetadata) and (
            there.size == size and there.content_hash == self._content_hash()
        )

    def keep(self, data: bytes | bytearray) -> str:
        return self._place.keep_piece(bytes(data))

    def kept(self, reference: str) -> bytes:
        return self._place.load(self._place.piece(reference))

    def drop(self, reference: str) -> None:
        try:
            self._place.delete(self._place.piece(reference))
        except ObjectNotFound:
            return

    def sent(self, state: str) -> Sequence[SentPart]:
        """Ask for the session's offset by naming one that it cannot have."""
        try:
            with self._place.calls.translated(self._plan.name):
                self._place.calls.client().files_upload_session_append_v2(
                    b"", files.UploadSessionCursor(state, _BEYOND)
                )
        except WrongOffset as error:
            size = self._place.part_size
            return [SentPart(number, size, "") for number in range(1, error.offset // size + 1)]
        raise BackendError(f"{self._plan.name}: Dropbox does not tell how far the upload is")

    def _content_hash(self) -> str:
        return hashlib.sha256(b"".join(self._hashes[n] for n in sorted(self._hashes))).hexdigest()


class WrongOffset(BackendError):
    """A session has another number of bytes: `offset`."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def _hashes(data: bytes | bytearray) -> bytes:
    view = memoryview(data)
    starts = range(0, len(view), BLOCK)
    return b"".join(hashlib.sha256(view[at : at + BLOCK]).digest() for at in starts)
