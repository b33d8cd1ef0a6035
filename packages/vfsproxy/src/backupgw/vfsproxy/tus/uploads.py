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
- A small upload that somebody was given a token for is not remembered before its first request, and
  if that brings all of it, not before it is a file.
"""

from __future__ import annotations

from starlette.requests import Request

from ..files.refusals import FileRefusal
from ..files.reply import Reply
from . import headers as tus
from .at_once import PatchingAtOnce
from .bodies import Space, forget, open_body
from .headers import describing, expiring
from .holds import Hold
from .receiving import Receiver
from .records import State, Upload
from .serving import RESUMABLE, UrlOf, gone


class TusUploads(PatchingAtOnce):
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
        if upload.recorded and upload.state in (State.OPEN, State.ENDING):
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
