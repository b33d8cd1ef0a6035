"""PATCH of tus 1.0.0: an upload is taken, brought up to date, and gets more bytes."""

from __future__ import annotations

import dataclasses
import logging

from starlette.datastructures import Headers
from starlette.requests import Request

from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound

from ..files.refusals import FileRefusal
from ..files.reply import Reply
from . import headers as tus
from .bodies import Space, open_body
from .creation import Creation
from .headers import expiring
from .holds import Hold, Holding
from .receiving import Receiver
from .records import Kind, State, Upload, UploadLost
from .recovery import recovered
from .serving import RESUMABLE, body_end, gone, told

logger = logging.getLogger(__name__)


class Patching(Creation):
    """Uploads that go on."""

    async def patch(self, request: Request, upload: Upload, space: Space) -> Reply:
        """Answer a PATCH: 204 with how much is kept now.

        Raises:
            FileRefusal: 409, the upload goes on elsewhere than at Upload-Offset; 400, 403, 410,
                413, 415, 423, 460, 507.
            ClientLeft: the client is gone; what came is kept.
        """
        asked = self._asked(request.headers, upload)
        hold = await self._take(upload.id, space, ending=asked.ending)
        try:
            receiver = await self._kernel(lambda: self._opened(hold, space, asked), upload.name)
            if receiver is None:
                upload = hold.upload  # nothing is sent: it is complete
            else:
                upload = await self._receive(request, receiver, asked.checksum)
        finally:
            await hold.end()
        return patched(upload)

    def _asked(self, sent: Headers, upload: Upload) -> Asked:
        """Read what a PATCH asks for. Raises FileRefusal."""
        tus.check_version(sent)
        if sent.get("content-type", "").partition(";")[0].strip().lower() != tus.OCTETS:
            raise FileRefusal(415, "content-type", f"send Content-Type: {tus.OCTETS}")
        offset = tus.number(sent, "Upload-Offset")
        if offset is None:
            raise FileRefusal(400, "invalid-header", "send Upload-Offset")
        if upload.kind is Kind.FINAL:
            raise FileRefusal(403, "upload-final", "a final upload is made of its parts alone")
        checksum = tus.checksum(sent)
        end = body_end(sent, offset)
        told = self._told_length(sent)
        length = upload.length if upload.length is not None else told
        return Asked(offset, end, told, checksum, ending=end is not None and end == length)

    def _opened(self, hold: Holding, space: Space, asked: Asked) -> Receiver | None:
        """Open an upload that is this request's; None, and let go of it, where it is complete."""
        upload = hold.upload
        try:
            upload = _with_length(upload, asked.length)
            if asked.offset != upload.offset:
                raise FileRefusal(
                    409,
                    "offset-mismatch",
                    f"the upload goes on at byte {upload.offset}, not at {asked.offset}",
                    {"Upload-Offset": str(upload.offset)},
                )
            most = self._most(upload)
            if asked.end is not None and most is not None and asked.end > most:
                raise FileRefusal(
                    413, "too-large", f"the upload would have more than its {most} bytes"
                )
            if upload.state in (State.DONE, State.JOINED):
                self._store.release(hold.held)
                return None
            try:
                body = open_body(space, upload, str(hold.held.epoch))
            except ObjectNotFound:
                if upload.offset:
                    raise
                # Its room is gone, with a ledger that was made anew, say: nothing else was kept.
                upload = dataclasses.replace(upload, token=None)
                body = open_body(space, upload, str(hold.held.epoch))
        except BaseException:
            self._store.release(hold.held)
            raise
        return Receiver(self._store, space, self._terms, upload, body, hold=hold, most=most)

    async def _receive(
        self, request: Request, receiver: Receiver, checksum: tus.Checksum | None
    ) -> Upload:
        try:
            await receiver.receive(request.scope, request.receive, self._threads, checksum)
        except BaseException as error:
            await self._threads.run(self._keep_what_came, receiver)
            if isinstance(error, BackendError | UploadLost):
                raise told(error, receiver.name) from error
            raise
        whole = receiver.whole
        kept = await self._kernel(receiver.finish if whole else receiver.keep, receiver.name)
        if whole:
            self._announce(kept)
        return kept

    def _keep_what_came(self, receiver: Receiver) -> None:
        try:
            receiver.keep()
        except (BackendError, UploadLost) as failure:
            logger.warning("upload %s: what came is not kept: %s", receiver.id, failure)

    def _told_length(self, sent: Headers) -> int | None:
        told = tus.number(sent, "Upload-Length")
        tus.check_size(told, self._terms.max_size)
        return told

    # -- taking an upload, and finding out what became of it

    async def _take(self, upload_id: str, space: Space, *, ending: bool) -> Hold:
        """Make an upload this request's, as it really stands."""
        hold = await self._holds.take(upload_id, ending=ending)
        if hold is None:
            raise gone()
        try:
            if _is_unsure(hold):
                await self._kernel(lambda: self._find_out(hold, space), hold.upload.name)
        except BaseException:
            await self._threads.run(self._store.release, hold.held)
            await hold.end()
            raise
        return hold

    def _find_out(self, hold: Holding, space: Space) -> None:
        """Find out what became of an upload whose last request died; blocks."""
        if _is_unsure(hold):
            upload = recovered(self._store, hold, space, self._terms)
            hold.held = dataclasses.replace(hold.held, upload=upload)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a PATCH asks for.

    Attributes:
        offset: where its body goes; end: how many bytes there are after it, where that is told.
        length: of the whole upload, where it is told (again).
        ending: it is the last of them.
    """

    offset: int
    end: int | None
    length: int | None
    checksum: tus.Checksum | None
    ending: bool


def _is_unsure(hold: Holding) -> bool:
    """Whether an upload may be other than it is written down."""
    state = hold.upload.state
    return state is State.ENDING or (state is State.OPEN and hold.held.died)


def patched(upload: Upload) -> Reply:
    headers = {"Upload-Offset": str(upload.offset), **RESUMABLE}
    if upload.state is State.OPEN:
        headers |= expiring(upload)
    return Reply(204, headers)


def _with_length(upload: Upload, told: int | None) -> Upload:
    """Take the length that comes late."""
    if told is None or told == upload.length:
        return upload
    if upload.length is not None:
        raise FileRefusal(
            400, "invalid-header", f"the length of this upload is {upload.length}, for good"
        )
    if told < upload.offset:
        raise FileRefusal(400, "invalid-header", f"the upload has {upload.offset} bytes already")
    return dataclasses.replace(upload, length=told)
