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

import dataclasses
import logging
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message

from backupgw.kvstore.backends.errors import BackendError, ObjectExists, ObjectNotFound

from ..files.incoming import GATHERED, ClientLeft, gather
from ..files.refusals import FileRefusal
from ..files.reply import Reply
from ..problems import Problem
from . import headers as tus
from .bodies import Space, forget, open_body
from .creation import Creation
from .headers import describing, expiring
from .holds import LEASE, Hold, Holding, ShortHold
from .receiving import Receiver
from .records import Kind, State, Upload, UploadBusy, UploadLost
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

    # -- more bytes

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
        return _patched(upload)

    async def patch_found(
        self, request: Request, look: Callable[[], tuple[Upload, Space]]
    ) -> Reply:
        """Answer a PATCH of an upload that is yet to be found.

        A small body is waited for, and then everything is done at once on one thread.

        Args:
            look: finds the upload; blocks, and may refuse.

        Raises:
            as `patch`.
        """
        sent = request.headers

        def recorded() -> tuple[Upload, Space]:
            upload, space = look()
            if not upload.recorded:
                upload = self._store.add(upload, self._terms.lifetime)
            return upload, space

        if not _is_small(sent):
            upload, space = await self._threads.run(recorded)
            return await self.patch(request, upload, space)
        pieces: list[bytes] = []
        left: ClientLeft | None = None
        try:
            await gather(request.receive, pieces)
        except ClientLeft as error:
            left = error

        def work() -> Upload:
            upload, space = look()
            try:
                if not upload.recorded:
                    done = self._finish_at_once(sent, upload, space, pieces)
                    if done is not None:
                        return done
                    upload = self._store.add(upload, self._terms.lifetime)
                return self._patch_at_once(sent, upload, space, pieces, broken=left is not None)
            except (BackendError, UploadLost) as error:
                raise told(error, upload.name) from error

        try:
            upload = await self._kernel(work, "")
        except UploadBusy:
            upload, space = await self._threads.run(recorded)
            return await self.patch(_again(request, pieces, left), upload, space)
        except Problem:
            if left is not None:
                raise left from None  # there is nobody to be told
            raise
        if left is not None:
            raise left
        return _patched(upload)

    def _patch_at_once(
        self,
        sent: Headers,
        upload: Upload,
        space: Space,
        pieces: Sequence[bytes],
        *,
        broken: bool,
    ) -> Upload:
        """Do all of a PATCH whose body is there; blocks. Raises UploadBusy: somebody else has it.

        Args:
            broken: the body ended early.
        """
        asked = self._asked(sent, upload)
        held = self._store.take(upload.id, LEASE, ending=asked.ending)
        if held is None:
            raise gone()
        hold = ShortHold(held)
        try:
            self._find_out(hold, space)
        except BaseException:
            self._store.release(hold.held)
            raise
        receiver = self._opened(hold, space, asked)
        if receiver is None:
            return hold.upload
        try:
            receiver.take(pieces)
        except BaseException:
            self._keep_what_came(receiver)
            raise
        if broken or not receiver.whole:
            return receiver.keep()
        kept = receiver.finish()
        self._announce(kept)
        return kept

    def _finish_at_once(
        self, sent: Headers, upload: Upload, space: Space, pieces: Sequence[bytes]
    ) -> Upload | None:
        """Make an upload that is not remembered a file, where all its bytes came in one request;
        None where they did not, or the name is taken: then it has to be remembered first. Blocks.

        What several requests do with one and the same upload cannot be told apart here. So the file
        is never replaced, and one that has these very bytes already is what is wanted: an earlier
        request made it, and its answer was lost.
        """
        asked = self._asked(sent, upload)
        if asked.offset or upload.overwrite or sum(map(len, pieces)) != upload.length:
            return None
        body = open_body(space, upload, "0")
        try:
            for piece in pieces:
                body.write(piece)
            done = body.finish()
        except ObjectExists:
            body.abort()
            if not _holds(space, upload, pieces):
                raise
            assert upload.length is not None
            done = dataclasses.replace(upload, state=State.DONE, offset=upload.length, token=None)
        except BaseException:
            body.abort()
            raise
        self._announce(done)
        return self._store.add(done, self._terms.after(done))

    def _asked(self, sent: Headers, upload: Upload) -> _Asked:
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
        return _Asked(offset, end, told, checksum, ending=end is not None and end == length)

    def _opened(self, hold: Holding, space: Space, asked: _Asked) -> Receiver | None:
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
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


def _is_small(sent: Headers) -> bool:
    """Whether a body is one to wait for, before anything is done for it."""
    size = tus.number(sent, "Content-Length")
    return size is not None and size <= GATHERED and "upload-checksum" not in sent


def _holds(space: Space, upload: Upload, pieces: Sequence[bytes]) -> bool:
    """Whether the file that an upload is to become has these bytes. Raises BackendError."""
    place, name = space.target(upload)
    try:
        with place.open_reader(name) as reader:
            if reader.item_size != upload.length:
                return False
            return place.load(name) == b"".join(pieces)
    except ObjectNotFound:
        return False


def _is_unsure(hold: Holding) -> bool:
    """Whether an upload may be other than it is written down."""
    state = hold.upload.state
    return state is State.ENDING or (state is State.OPEN and hold.held.died)


def _again(request: Request, pieces: Sequence[bytes], left: ClientLeft | None) -> Request:
    """Return a request whose body was taken already."""
    messages = [{"type": "http.request", "body": b"".join(pieces), "more_body": left is not None}]
    if left is not None:
        messages.append({"type": "http.disconnect"})
    left_over = iter(messages)

    async def receive() -> Message:
        return next(left_over)

    return Request({**request.scope, "extensions": {}}, receive)


def _patched(upload: Upload) -> Reply:
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
