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
import secrets
from collections.abc import Callable, Mapping
from typing import TypeVar

from starlette.datastructures import Headers
from starlette.requests import Request

from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.runtime.threads import Threads

from ..files import names
from ..files.calling import on_thread
from ..files.incoming import ClientLeft
from ..files.refusals import FileRefusal, refusal_of
from ..files.reply import Reply
from ..problems import Problem
from . import headers as tus
from .bodies import (
    Body,
    Space,
    check_target,
    ended,
    forget,
    join,
    open_body,
    remove_staged,
    whole_piece,
)
from .headers import Concatenation, describing, expiring
from .holds import Hold, Holds, locked
from .receiving import Receiver, Terms
from .records import Kind, State, Upload, UploadLost, UploadStore

logger = logging.getLogger(__name__)

T = TypeVar("T")
UrlOf = Callable[[str], str]
"""Returns the URL of an upload by its id, absolute or a path."""

RESUMABLE = {"Tus-Resumable": tus.VERSION}

EXPOSED = (
    "Location, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, "
    "Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Concat, "
    "Upload-Expires"
)
"""For Access-Control-Expose-Headers: without it scripts in browsers cannot see them."""
ALLOWED = (
    "Tus-Resumable, Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, "
    "Upload-Concat, Upload-Checksum, Content-Type, X-HTTP-Method-Override, X-Request-ID"
)
"""For Access-Control-Allow-Headers."""

_GONE = FileRefusal(410, "upload-gone", "this upload is over; start it again")


def method_of(request: Request) -> str:
    """Return the method that a request means: some proxies let only GET and POST through, and the
    protocol has a header for what lies behind them."""
    override = request.headers.get("x-http-method-override")
    return override.upper() if override is not None and request.method == "POST" else request.method


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """An upload that a client asks for.

    Attributes:
        length: bytes; None where they will be told later.
        metadata: decoded; values that are no text have characters of U+DC80 to DCFF.
    """

    length: int | None
    concatenation: Concatenation
    metadata: Mapping[str, str]
    raw_metadata: str

    @property
    def name(self) -> str:
        """The path that the metadata names, as the client wrote it.

        Raises:
            FileRefusal: 400, it names none.
        """
        # What tus clients call it: ours, Uppy's, and what nearly all send.
        for key in ("path", "relpath", "relativePath", "filename", "name"):
            if self.metadata.get(key, "null") not in ("", "null"):
                return self.metadata[key]
        raise FileRefusal(400, "invalid-name", "Upload-Metadata needs a filename")

    @property
    def overwrite(self) -> bool:
        """Whether the metadata asks to replace a file of that name."""
        return self.metadata.get("overwrite", "").lower() in ("1", "true", "yes")


class TusUploads:
    """The uploads of a service.

    Args:
        store: remembers them.
        threads: where blocking calls run.
        terms: what holds for all.
        on_done: told of each file that an upload became.
    """

    def __init__(
        self,
        store: UploadStore,
        threads: Threads,
        terms: Terms | None = None,
        on_done: Callable[[Upload], object] = lambda _upload: None,
    ) -> None:
        self._store = store
        self._threads = threads
        self._terms = terms or Terms()
        self._holds = Holds(store, threads)
        self._on_done = on_done

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

    # -- creation

    def wanted(self, request: Request) -> Wanted:
        """Read what a POST asks for. Raises FileRefusal: it is malformed, or too large."""
        sent = request.headers
        tus.check_version(sent)
        concatenation = tus.concatenation(sent)
        metadata = tus.metadata(sent)
        if concatenation.kind is Kind.FINAL:
            if "upload-length" in sent or "upload-defer-length" in sent:
                raise FileRefusal(
                    400,
                    "invalid-header",
                    "a final upload is as long as its parts: no Upload-Length",
                )
            length: int | None = None
        else:
            length = tus.length(sent, self._terms.max_size)
        return Wanted(length, concatenation, metadata, sent.get("upload-metadata", ""))

    async def create(
        self,
        request: Request,
        wanted: Wanted,
        space: Space,
        *,
        folder: str,
        owner: str,
        url_of: UrlOf,
    ) -> Reply:
        """Answer a POST: 201 with the URL of a new upload, whose bytes may come along.

        Args:
            folder: the id of the folder that `space` is of.

        Raises:
            FileRefusal: 409, the name is taken; 413, 507, there is no room; 460 and others.
        """
        kind = wanted.concatenation.kind
        name = "" if kind is Kind.PARTIAL else names.new(wanted.name)
        upload = Upload(
            id=secrets.token_hex(16),
            folder=folder,
            owner=owner,
            name=name,
            length=wanted.length,
            kind=kind,
            metadata=wanted.raw_metadata,
            overwrite=wanted.overwrite,
            parts=wanted.concatenation.parts,
        )
        if kind is Kind.FINAL:
            upload = await self._join(space, upload)
        else:
            checksum = None
            if _has_body(request.headers):
                tus.check_size(_body_end(request.headers, 0), upload.length)
                checksum = tus.checksum(request.headers)
            receiver = await self._start(space, upload)
            if _has_body(request.headers):
                try:
                    await receiver.receive(request.scope, request.receive, self._threads, checksum)
                except ClientLeft:
                    # Nobody was told its URL; it is there all the same, as the protocol has it.
                    await self._threads.run(receiver.keep)
                    raise
                except BaseException as error:
                    await self._threads.run(receiver.abort)
                    if isinstance(error, BackendError | UploadLost):
                        raise _told(error, name) from error
                    raise
            upload = await self._settle(receiver, upload)
        told = {"Location": url_of(upload.id), **RESUMABLE}
        if _has_body(request.headers) or upload.complete:
            told["Upload-Offset"] = str(upload.offset)
        if upload.state is State.OPEN:
            told |= expiring(upload)
        return Reply(201, told)

    async def add(
        self,
        space: Space,
        *,
        folder: str,
        owner: str,
        name: str,
        length: int | None,
        overwrite: bool = False,
    ) -> Upload:
        """Create an upload for somebody who will send its bytes later; done where there are none.

        Raises:
            FileRefusal: as `create`.
        """
        tus.check_size(length, self._terms.max_size)
        upload = Upload(
            id=secrets.token_hex(16),
            folder=folder,
            owner=owner,
            name=names.new(name),
            length=length,
            overwrite=overwrite,
        )
        return await self._settle(await self._start(space, upload), upload)

    async def _start(self, space: Space, upload: Upload) -> Receiver:
        def start() -> Body:
            if upload.kind is not Kind.PARTIAL:
                check_target(space, upload)
            return open_body(space, upload, "0")

        body = await self._kernel(start, upload.name)
        return Receiver(
            self._store, space, self._terms, upload, body, hold=None, most=self._most(upload)
        )

    async def _settle(self, receiver: Receiver, upload: Upload) -> Upload:
        """Keep a new upload, or finish it if it is whole."""
        whole = receiver.offset == upload.length
        try:
            kept = await self._kernel(receiver.finish if whole else receiver.keep, upload.name)
        except Problem:
            await self._threads.run(receiver.abort)
            raise
        if whole:
            self._announce(kept)
        return kept

    def _announce(self, done: Upload) -> None:
        if done.kind is not Kind.PARTIAL:
            self._on_done(done)

    async def _join(self, space: Space, upload: Upload) -> Upload:
        parts = [await self._threads.run(self._store.find, part) for part in upload.parts]
        found = [
            part
            for part in parts
            if part is not None
            and part.kind is Kind.PARTIAL
            # A stranger's is as good as none.
            and (part.folder, part.owner) == (upload.folder, upload.owner)
        ]
        if len(found) != len(parts):
            raise FileRefusal(404, "upload-not-found", "one of the parts is no partial upload here")
        if any(part.state is State.JOINED for part in found):
            raise FileRefusal(409, "part-joined", "one of the parts is part of a file already")
        if any(part.state is not State.DONE for part in found):
            raise FileRefusal(409, "part-unfinished", "one of the parts is not complete yet")
        size = sum(part.offset for part in found)
        tus.check_size(size, self._terms.max_size)
        pieces = [piece for part in found for piece in part.pieces]

        def work() -> Upload:
            check_target(space, upload)
            join(space, pieces, upload.name, overwrite=upload.overwrite)
            done = dataclasses.replace(upload, state=State.DONE, length=size, offset=size)
            return self._store.add(done, self._terms.kept)

        done = await self._kernel(work, upload.name)
        self._on_done(done)
        for part in found:
            await self._clear_joined(space, part)
        return done

    async def _clear_joined(self, space: Space, part: Upload) -> None:
        """Remove the bytes of a part that are elsewhere too now; left alone, it will expire."""
        hold = None
        try:
            hold = await self._holds.take(part.id, ending=False)
            if hold is not None:
                await self._threads.run(remove_staged, space, part)
                joined = dataclasses.replace(part, state=State.JOINED, pieces=())
                await self._threads.run(
                    self._store.keep, hold.held, joined, self._terms.kept, release=True
                )
        except (BackendError, Problem, UploadLost) as error:
            logger.warning("part %s was joined and is removed later: %s", part.id, error)
        finally:
            if hold is not None:
                await hold.end()

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
        told = describing(upload, {part: url_of(part) for part in upload.parts})
        if upload.state is State.OPEN:
            told |= expiring(upload)
        return Reply(200, {**told, **RESUMABLE})

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
        end = _body_end(sent, offset)
        length = upload.length if upload.length is not None else self._told_length(sent)
        hold = await self._take(upload.id, space, ending=end is not None and end == length)
        try:
            upload = await self._patch(request, hold, space, offset, end, checksum)
        finally:
            await hold.end()
        told = {"Upload-Offset": str(upload.offset), **RESUMABLE}
        if upload.state is State.OPEN:
            told |= expiring(upload)
        return Reply(204, told)

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
                raise _told(error, upload.name) from error
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
            raise _GONE
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
            raise _GONE
        try:
            upload = hold.upload
            if upload.state in (State.OPEN, State.ENDING) and (
                hold.held.died or upload.state is State.ENDING
            ):
                upload = await self._kernel(lambda: self._recovered(hold, space), upload.name)
                hold.held = dataclasses.replace(hold.held, upload=upload)
        except BaseException:
            await self._threads.run(self._store.release, hold.held)
            await hold.end()
            raise
        return hold

    def _recovered(self, hold: Hold, space: Space) -> Upload:
        """Find out what is there of an upload whose last request died."""
        upload = hold.upload
        if upload.state is State.ENDING and ended(space, upload):
            return self._done(hold, space, upload)
        try:
            body = open_body(space, upload, f"{hold.held.epoch}-r")
        except ObjectNotFound:
            if upload.state is State.ENDING and ended(space, upload, lost=True):
                return self._done(hold, space, upload)
            logger.warning("upload %s is lost: the volume has nothing of it", upload.id)
            self._store.drop(hold.held)
            raise _GONE from None
        return self._store.keep(hold.held, body.keep(), self._terms.lifetime, release=False)

    def _done(self, hold: Hold, space: Space, upload: Upload) -> Upload:
        pieces = upload.pieces
        if upload.kind is not Kind.PARTIAL:
            remove_staged(space, upload)
            pieces = ()
        elif not pieces:
            pieces = whole_piece(space, upload)
        assert upload.length is not None  # or it could not have been ending
        done = dataclasses.replace(
            upload, state=State.DONE, offset=upload.length, token=None, pieces=pieces
        )
        return self._store.keep(hold.held, done, self._terms.kept, release=False)

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

    async def _kernel(self, call: Callable[[], T], name: str) -> T:
        try:
            return await on_thread(self._threads, name, call)
        except UploadLost as error:
            raise _told(error, name) from error

    def _most(self, upload: Upload) -> int | None:
        return self._terms.max_size if upload.length is None else upload.length


def _told(error: BackendError | UploadLost, name: str) -> Problem:
    if isinstance(error, UploadLost):
        return locked("another request has taken this upload over")
    return refusal_of(error, name)


def _has_body(sent: Headers) -> bool:
    kind = sent.get("content-type", "").partition(";")[0].strip().lower()
    return kind == tus.OCTETS and (
        sent.get("content-length", "0") != "0" or "transfer-encoding" in sent
    )


def _body_end(sent: Headers, offset: int) -> int | None:
    """Return how many bytes an upload has after a body whose length is told."""
    length = tus.number(sent, "Content-Length")
    return None if length is None else offset + length
