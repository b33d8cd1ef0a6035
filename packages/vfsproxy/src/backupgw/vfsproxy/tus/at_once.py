"""PATCH with a small body: it is waited for, and then all is done on one thread.

An upload that is not remembered yet, since somebody was only given a token for it, and that one
request brings all of, is not remembered before it is a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message

from backupgw.kvstore.backends.errors import BackendError, ObjectExists, ObjectNotFound

from ..files.incoming import GATHERED, ClientLeft, gather
from ..files.reply import Reply
from ..problems import Problem
from . import headers as tus
from .bodies import Space, open_body
from .holds import LEASE, ShortHold
from .patching import Patching, patched
from .records import State, Upload, UploadBusy, UploadLost
from .serving import gone, told


class PatchingAtOnce(Patching):
    """Uploads that go on, a small body at once."""

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
        return patched(upload)

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


def _again(request: Request, pieces: Sequence[bytes], left: ClientLeft | None) -> Request:
    """Return a request whose body was taken already."""
    messages = [{"type": "http.request", "body": b"".join(pieces), "more_body": left is not None}]
    if left is not None:
        messages.append({"type": "http.disconnect"})
    left_over = iter(messages)

    async def receive() -> Message:
        return next(left_over)

    return Request({**request.scope, "extensions": {}}, receive)
