"""The body of one request on its way to an upload: taken from the client, written, kept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.types import Receive, Scope

from backupgw.kvstore.backends.base import CHUNK
from backupgw.kvstore.backends.errors import BackendError, ObjectExists
from backupgw.runtime.threads import Threads

from ..files.incoming import batched, take_body
from ..files.refusals import FileRefusal
from .bodies import Body, Space, keep_room, open_body
from .headers import Checksum
from .holds import Hold, Holding, locked
from .reaping import end_upload
from .records import Kind, Upload, UploadLost, UploadStore

logger = logging.getLogger(__name__)

KEEP_EVERY = 256 << 20
"""Bytes after which what has come is made durable: what a crash of the gateway costs, at most, on
volumes that forget what came after a checkpoint."""
SPOOLED = 8 << 20
"""Bytes of a body with a checksum that are held in memory; the rest goes to a temporary file."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every upload of a service.

    Attributes:
        lifetime: seconds that an upload may lie untouched.
        kept: seconds that an upload which is done is remembered.
        max_size: bytes of the largest upload; None: no limit.
        max_checked: bytes of the largest request with a checksum, which has to be held until it is
            known to be right.
        spool: folder for what is held; None: the system's.
    """

    lifetime: float = 7 * 86_400.0
    kept: float = 3_600.0
    max_size: int | None = None
    max_checked: int = 1 << 30
    spool: str | None = None

    def after(self, done: Upload) -> float:
        """Return the seconds that an upload which is done is remembered: a part of a file waits
        for the others."""
        return self.lifetime if done.kind is Kind.PARTIAL else self.kept


class Receiver:
    """Writes what comes to one upload. Its methods block, but for `receive`.

    Args:
        hold: the upload, where another request could have it.
        upload: as it stands.
        body: open.
        most: bytes that the upload may have at its end.
    """

    def __init__(
        self,
        store: UploadStore,
        space: Space,
        terms: Terms,
        upload: Upload,
        body: Body,
        *,
        hold: Holding | None,
        most: int | None,
    ) -> None:
        self._store = store
        self._space = space
        self._terms = terms
        self._hold = hold
        self._upload = upload
        self._body: Body | None = body
        self._most = most
        self._since = 0
        self._rounds = 0

    # -- taking it from the client

    async def receive(
        self, scope: Scope, receive: Receive, threads: Threads, checksum: Checksum | None
    ) -> None:
        """Take the body of a request. What has been written by the time of an error, stays so.

        Raises:
            ClientLeft: it ended early.
            FileRefusal: it is too long, not what its checksum says, or somebody else wants the
                upload.
            BackendError: the volume failed.
            UploadLost: somebody else may have the upload.
        """
        if checksum is not None:
            work = self._receive_checked(receive, threads, checksum)
        else:
            work = take_body(scope, receive, threads, self._write)
        hold = self._hold
        if not isinstance(hold, Hold):
            await work
            return
        task = asyncio.ensure_future(work)
        hold.on_interrupt(task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            if not hold.interrupted:
                raise  # the gateway stops
            raise locked("another request has taken this upload over") from None
        finally:
            hold.on_interrupt(None)

    async def _receive_checked(
        self, receive: Receive, threads: Threads, checksum: Checksum
    ) -> None:
        held = tempfile.SpooledTemporaryFile(SPOOLED, dir=self._terms.spool)  # noqa: SIM115
        with contextlib.closing(held):
            size = 0

            def hold(pieces: Sequence[bytes]) -> None:
                nonlocal size
                for piece in pieces:
                    size += len(piece)
                    if size > self._terms.max_checked:
                        raise FileRefusal(
                            413,
                            "too-large",
                            f"a request with a checksum may have {self._terms.max_checked} bytes; "
                            "send smaller chunks",
                        )
                    self._refuse_beyond(size)
                    checksum.update(piece)
                    held.write(piece)

            await batched(receive, lambda pieces: threads.run(hold, pieces))
            checksum.check()

            def hand_over() -> None:
                held.seek(0)
                while chunk := held.read(CHUNK):
                    self._write(chunk)

            await threads.run(hand_over)

    # -- writing it

    def take(self, pieces: Iterable[bytes]) -> None:
        """Take bytes that are there. Raises as `receive`."""
        for piece in pieces:
            self._write(piece)

    def _write(self, piece: bytes | memoryview) -> None:
        body = self._open_body()
        self._refuse_beyond(len(piece))
        if self._hold is not None and not self._hold.good():
            raise UploadLost(self._upload.id)
        body.write(piece)
        self._since += len(piece)
        if self._since >= KEEP_EVERY and self._hold is not None:
            self._keep_and_go_on(self._hold)

    def _refuse_beyond(self, more: int) -> None:
        offset = self._open_body().offset
        if self._most is not None and offset + more > self._most:
            raise FileRefusal(
                413, "too-large", f"the upload would have more than its {self._most} bytes"
            )

    def _open_body(self) -> Body:
        if self._body is None:
            raise UploadLost(self._upload.id)
        return self._body

    def _keep_and_go_on(self, hold: Holding) -> None:
        body, self._body = self._open_body(), None
        self._upload = self._store.keep(hold.held, body.keep(), self._terms.lifetime, release=False)
        self._since = 0
        self._rounds += 1
        attempt = f"{hold.held.epoch}-{self._rounds}"
        self._body = open_body(self._space, self._upload, attempt)

    # -- ending it

    @property
    def id(self) -> str:
        """Of the upload."""
        return self._upload.id

    @property
    def name(self) -> str:
        """Of the file that it becomes."""
        return self._upload.name

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.offset == self._upload.length

    @property
    def offset(self) -> int:
        """Bytes that have been written."""
        return self._upload.offset if self._body is None else self._body.offset

    def keep(self) -> Upload:
        """Make durable what has come, and let go; return the upload as it stands.

        Raises:
            BackendError: the volume failed. What an earlier request left is still there where it
                may be asked again, otherwise the upload is forgotten.
        """
        body, self._body = self._body, None
        if self._hold is not None and not self._hold.good():
            # Its next holder has what the volume has, and may be writing to it.
            raise UploadLost(self._upload.id)
        upload = self._upload
        if body is not None:
            try:
                upload = body.keep()
            except BackendError as error:
                self._give_up(body, error)
                raise
        return self._record(upload, self._terms.lifetime)

    def _give_up(self, body: Body, error: BackendError) -> None:
        if self._hold is None:
            body.abort()
        elif error.retryable and (self._upload.token is not None or self._upload.pieces):
            logger.warning("upload %s goes back to what it had: %s", self._upload.id, error)
            self._store.release(self._hold.held)
        else:
            logger.warning("upload %s is lost: %s", self._upload.id, error)
            body.abort()
            self._store.drop(self._hold.held)

    def finish(self) -> Upload:
        """Give the file its name; return the upload as it stands.

        Raises:
            ObjectExists: there is a file of that name by now; the upload is kept.
            BackendError: the volume failed; likewise where it may be asked again.
        """
        body = self._open_body()
        if self._hold is not None and not self._hold.good():
            raise UploadLost(self._upload.id)
        try:
            upload = body.finish()
        except ObjectExists:
            self.keep()
            raise
        except BackendError as error:
            self._body = None
            self._give_up(body, error)
            raise
        self._body = None
        return self._record(upload, self._terms.after(upload))

    def _record(self, upload: Upload, lifetime: float) -> Upload:
        # First it is written down, then its room outlives this process: nobody would ever give
        # back a room of which nobody knows.
        if self._hold is not None:
            kept = self._store.keep(self._hold.held, upload, lifetime, release=True)
            try:
                keep_room(self._space, kept)
            except BackendError as error:
                logger.warning("the room of upload %s may be lost: %s", kept.id, error)
            return kept
        added = self._store.add(upload, lifetime)
        try:
            keep_room(self._space, added)
        except BaseException:
            end_upload(self._store, added.id, lambda _folder: self._space)
            raise
        return added

    def abort(self) -> None:
        """Let go of an upload that nobody knows yet."""
        body, self._body = self._body, None
        if body is not None:
            body.abort()
