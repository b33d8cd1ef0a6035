"""tus 1.0.0 as requests and answers: what each verb does to an upload.

Whoever routes requests here says who may do what: `create` is told the folder's space and the
owner, the others are for an upload that the caller has found (`find`) and allowed. Every method
returns a `Reply` or raises `FileRefusal`.

Beyond the letter of the protocol:
- An upload of no bytes is done when it is created, since no client sends a PATCH for it.
- An upload takes the place of a file only where that was asked for; the name is looked at when the
  upload is created, and again, in one step with giving it, at the end.
- A request with a checksum is kept whole or not at all; of any other, what came before the
  connection broke is kept.
- Partial uploads count until they are joined, and end with that.
"""

from __future__ import annotations

import dataclasses
import logging

from starlette.datastructures import Headers
from starlette.requests import Request

from backupgw.kvstore.backends.errors import BackendError

from ..files.refusals import FileRefusal
from ..files.reply import Reply
from . import headers as tus
from .bodies import Space, forget, open_body
from .creation import Creation
from .headers import describing, expiring
from .holds import Hold
from .receiving import Receiver
from .records import Kind, State, Upload, UploadLost
from .recovery import recovered
from .serving import RESUMABLE, UrlOf, body_end, gone, told

logger = logging.getLogger(__name__)


class TusUploads(Creation):
    """The uploads of a service: see `Serving` for what it takes."""

    def options(self) -> Reply:
        """Say what there is."""
        told = {
            **RESUMABLE,
            "Tus-Version": tus.VERSION,
            "Tus-Extension": tus.EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
        }
        if self._terms.max_size is not None:
            told["Tus-Max-Size"] = str(self._terms.max_size)
        return Reply(204, told)

    # -- what there is

    async def find(self, upload_id: str) -> Upload:
        """Return an upload, for whoever says who may go on.

        Raises:
            FileRefusal: 404, there is none.
        """
        upload = await self._threads.run(self._store.find, upload_id)
        if upload is None:
            raise FileRefusal(404, "upload-not-found", "there is no such upload")
        return upload

    async def head(self, request: Request, upload: Upload, space: Space, url_of: UrlOf) -> Reply:
        """Answer a HEAD: how much of the upload is kept.

        Whoever asks is about to carry on, so a request that still waits for bytes is ended first.

        Raises:
            FileRefusal: 409, all bytes are there but the name was taken meanwhile; 410, 423.
        """
        tus.check_version(request.headers)
        if upload.state in (State.OPEN, State.ENDING):
            hold = await self._take(upload.id, space, ending=upload.complete)
            try:
                upload = hold.upload
                if upload.complete:
                    upload = await self._finish(hold, space)
                else:
                    await self._threads.run(self._store.release, hold.held)
            finally:
                await hold.end()
        headers = describing(upload, {part: url_of(part) for part in upload.parts})
        if upload.state is State.OPEN:
            headers |= expiring(upload)
        return Reply(200, {**headers, **RESUMABLE})

    # -- more bytes

    async def patch(self, request: Request, upload: Upload, space: Space) -> Reply:
        """Answer a PATCH: 204 with how much is kept now.

        Raises:
            FileRefusal: 409, the upload goes on elsewhere than at Upload-Offset; 400, 403, 410,
                413, 415, 423, 460, 507.
            ClientLeft: the client is gone; what came is kept.
        """
        sent = request.headers
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
        length = upload.length if upload.length is not None else self._told_length(sent)
        hold = await self._take(upload.id, space, ending=end is not None and end == length)
        try:
            upload = await self._patch(request, hold, space, offset, end, checksum)
        finally:
            await hold.end()
        headers = {"Upload-Offset": str(upload.offset), **RESUMABLE}
        if upload.state is State.OPEN:
            headers |= expiring(upload)
        return Reply(204, headers)

    async def _patch(
        self,
        request: Request,
        hold: Hold,
        space: Space,
        offset: int,
        end: int | None,
        checksum: tus.Checksum | None,
    ) -> Upload:
        upload = hold.upload
        try:
            upload = self._with_length(upload, request.headers)
            if offset != upload.offset:
                raise FileRefusal(
                    409,
                    "offset-mismatch",
                    f"the upload goes on at byte {upload.offset}, not at {offset}",
                    {"Upload-Offset": str(upload.offset)},
                )
            most = self._most(upload)
            if end is not None and most is not None and end > most:
                raise FileRefusal(
                    413, "too-large", f"the upload would have more than its {most} bytes"
                )
            if upload.state in (State.DONE, State.JOINED):
                await self._threads.run(self._store.release, hold.held)
                return upload  # nothing is sent: it is complete
            body = await self._kernel(
                lambda: open_body(space, upload, str(hold.held.epoch)), upload.name
            )
        except BaseException:
            await self._threads.run(self._store.release, hold.held)
            raise
        receiver = Receiver(
            self._store, space, self._terms, upload, body, hold=hold, most=self._most(upload)
        )
        return await self._receive(request, receiver, upload, checksum)

    async def _receive(
        self,
        request: Request,
        receiver: Receiver,
        upload: Upload,
        checksum: tus.Checksum | None,
    ) -> Upload:
        try:
            await receiver.receive(request.scope, request.receive, self._threads, checksum)
        except BaseException as error:
            try:
                await self._threads.run(receiver.keep)
            except (BackendError, UploadLost) as failure:
                logger.warning("upload %s: what came is not kept: %s", upload.id, failure)
            if isinstance(error, BackendError | UploadLost):
                raise told(error, upload.name) from error
            raise
        whole = receiver.offset == upload.length
        kept = await self._kernel(receiver.finish if whole else receiver.keep, upload.name)
        if whole:
            self._announce(kept)
        return kept

    def _told_length(self, sent: Headers) -> int | None:
        told = tus.number(sent, "Upload-Length")
        tus.check_size(told, self._terms.max_size)
        return told

    def _with_length(self, upload: Upload, sent: Headers) -> Upload:
        """Take the length that comes late."""
        told = self._told_length(sent)
        if told is None or told == upload.length:
            return upload
        if upload.length is not None:
            raise FileRefusal(
                400, "invalid-header", f"the length of this upload is {upload.length}, for good"
            )
        if told < upload.offset:
            raise FileRefusal(
                400, "invalid-header", f"the upload has {upload.offset} bytes already"
            )
        return dataclasses.replace(upload, length=told)

    # -- the end

    async def delete(self, request: Request, upload: Upload, space: Space) -> Reply:
        """Answer a DELETE: 204, the upload is over. What it became, if anything, stays.

        Raises:
            FileRefusal: 410, it is over; 423, another gateway works on it.
        """
        tus.check_version(request.headers)
        await self.terminate(upload.id, space)
        return Reply(204, RESUMABLE)

    async def terminate(self, upload_id: str, space: Space | None) -> None:
        """End an upload and remove what there is of it.

        Args:
            space: None where its folder is gone, with all that was in it.

        Raises:
            FileRefusal: 410, it is over; 423.
        """
        hold = await self._holds.take(upload_id, ending=False)
        if hold is None:
            raise gone()
        try:
            try:
                if space is not None:
                    await self._kernel(lambda: forget(space, hold.upload), hold.upload.name)
            except BaseException:
                await self._threads.run(self._store.release, hold.held)
                raise
            await self._threads.run(self._store.drop, hold.held)
        finally:
            await hold.end()

    # -- taking an upload, and finding out what became of it

    async def _take(self, upload_id: str, space: Space, *, ending: bool) -> Hold:
        """Make an upload this request's, as it really stands."""
        hold = await self._holds.take(upload_id, ending=ending)
        if hold is None:
            raise gone()
        try:
            upload = hold.upload
            if upload.state in (State.OPEN, State.ENDING) and (
                hold.held.died or upload.state is State.ENDING
            ):
                upload = await self._kernel(
                    lambda: recovered(self._store, hold, space, self._terms), upload.name
                )
                hold.held = dataclasses.replace(hold.held, upload=upload)
        except BaseException:
            await self._threads.run(self._store.release, hold.held)
            await hold.end()
            raise
        return hold

    async def _finish(self, hold: Hold, space: Space) -> Upload:
        """Give a file its name whose bytes are all there."""
        upload = hold.upload
        if upload.state is State.DONE:
            await self._threads.run(self._store.release, hold.held)
            return upload

        def work() -> Upload:
            try:
                body = open_body(space, upload, f"{hold.held.epoch}-f")
            except BaseException:
                self._store.release(hold.held)
                raise
            receiver = Receiver(
                self._store, space, self._terms, upload, body, hold=hold, most=upload.length
            )
            return receiver.finish()

        done = await self._kernel(work, upload.name)
        self._announce(done)
        return done
