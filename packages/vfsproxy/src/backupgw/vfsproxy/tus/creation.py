"""tus: creation, creation-with-upload, and concatenation."""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Callable, Mapping

from starlette.requests import Request

from backupgw.kvstore.backends.errors import BackendError, UnsupportedOperation

from ..files import names
from ..files.incoming import GATHERED, ClientLeft
from ..files.refusals import FileRefusal
from ..files.reply import Reply
from ..problems import Problem
from . import headers as tus
from .bodies import Space, check_target, join, open_body, remove_staged
from .headers import Concatenation, expiring
from .receiving import Receiver
from .records import Kind, State, Upload, UploadLost
from .serving import RESUMABLE, Serving, UrlOf, body_end, has_body, told

logger = logging.getLogger(__name__)


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


class Creation(Serving):
    """Creates uploads."""

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
        upload = _new(wanted, folder, owner)
        name = upload.name
        if upload.kind is Kind.FINAL:
            upload = await self._join(space, upload)
        else:
            checksum = None
            if has_body(request.headers):
                tus.check_size(body_end(request.headers, 0), upload.length)
                checksum = tus.checksum(request.headers)
            receiver = await self._start(space, upload)
            if has_body(request.headers):
                try:
                    await receiver.receive(request.scope, request.receive, self._threads, checksum)
                except ClientLeft:
                    # Nobody was told its URL; it is there all the same, as the protocol has it.
                    await self._threads.run(receiver.keep)
                    raise
                except BaseException as error:
                    await self._threads.run(receiver.abort)
                    if isinstance(error, BackendError | UploadLost):
                        raise told(error, name) from error
                    raise
            upload = await self._settle(receiver, upload)
        return _created(upload, url_of, sent=has_body(request.headers))

    async def create_found(
        self,
        request: Request,
        wanted: Wanted,
        look: Callable[[], tuple[Space, str]],
        *,
        owner: str,
        url_of: UrlOf,
    ) -> Reply:
        """Answer a POST, like `create`; in one call on a thread where nothing else comes along.

        Args:
            look: returns the space and the id of the folder; blocks, and may refuse.
        """
        if wanted.concatenation.kind is Kind.FINAL or has_body(request.headers):
            space, folder = await self._threads.run(look)
            return await self.create(
                request, wanted, space, folder=folder, owner=owner, url_of=url_of
            )

        def work() -> Upload:
            space, folder = look()
            upload = _new(wanted, folder, owner)
            try:
                return self._add(space, upload)
            except BackendError as error:
                raise told(error, upload.name) from error

        return _created(await self._kernel(work, ""), url_of, sent=False)

    def add(
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
        Blocks.

        Raises:
            FileRefusal: as `create`.
            BackendError: the volume failed.
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
        return self._add(space, upload)

    def expect(
        self, space: Space, *, folder: str, owner: str, name: str, length: int, seconds: float
    ) -> Upload | None:
        """Return a small new upload that nothing is written down of but its room, for `seconds`.

        Whoever has it has all there is: `patch_found` finishes it with its bytes, or has it
        remembered. None where that cannot be done: `add` can. Blocks.

        Raises:
            as `add`.
        """
        if not 0 < length <= GATHERED:
            return None
        tus.check_size(length, self._terms.max_size)
        upload = Upload(
            id=secrets.token_hex(16),
            folder=folder,
            owner=owner,
            name=names.new(name),
            length=length,
        )
        check_target(space, upload)
        try:
            token = space.items.reserve_writer(
                upload.name, size=length, if_absent=True, seconds=seconds
            )
        except UnsupportedOperation:
            return None  # the volume cannot carry writes on
        return dataclasses.replace(upload, token=token)

    def _add(self, space: Space, upload: Upload) -> Upload:
        receiver = self._begun(space, upload)
        try:
            if not receiver.whole:
                return receiver.keep()
            done = receiver.finish()
        except BaseException:
            receiver.abort()
            raise
        self._announce(done)
        return done

    def _begun(self, space: Space, upload: Upload) -> Receiver:
        if upload.kind is not Kind.PARTIAL:
            check_target(space, upload)
        body = open_body(space, upload, "0")
        return Receiver(
            self._store, space, self._terms, upload, body, hold=None, most=self._most(upload)
        )

    async def _start(self, space: Space, upload: Upload) -> Receiver:
        return await self._kernel(lambda: self._begun(space, upload), upload.name)

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


def _new(wanted: Wanted, folder: str, owner: str) -> Upload:
    kind = wanted.concatenation.kind
    return Upload(
        id=secrets.token_hex(16),
        folder=folder,
        owner=owner,
        name="" if kind is Kind.PARTIAL else names.new(wanted.name),
        length=wanted.length,
        kind=kind,
        metadata=wanted.raw_metadata,
        overwrite=wanted.overwrite,
        parts=wanted.concatenation.parts,
    )


def _created(upload: Upload, url_of: UrlOf, *, sent: bool) -> Reply:
    headers = {"Location": url_of(upload.id), **RESUMABLE}
    if sent or upload.complete:
        headers["Upload-Offset"] = str(upload.offset)
    if upload.state is State.OPEN:
        headers |= expiring(upload)
    return Reply(201, headers)
