"""Single transfers by a token in the URL, as clients of Backend.AI's storage proxy make them.

A token is given by a manager (`POST /folder/file/download`, `…/upload`) or by a user's own request
(`POST /v1/folders/{folder}/links`). It is checked here, and so is what its user may do by now.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from starlette.requests import Request

from backupgw.runtime.http.incoming import ClientGone
from backupgw.runtime.threads import Threads

from ..core import Core
from ..files import archive, changes, names
from ..files.calling import on_thread
from ..files.disposition import attachment
from ..files.download import send_file
from ..files.incoming import ClientLeft
from ..files.names import lying
from ..files.reply import Reply
from ..folders.access import FolderAccess
from ..folders.records import Permission
from ..identity import Identity
from ..manager.references import reference_of, resolve_folder
from ..problems import Problem, not_found
from ..transfers import ArchiveClaims, DownloadClaims, Transfers, UploadClaims
from ..tus.bodies import Space
from ..tus.database import DatabaseUploads
from ..tus.headers import OCTETS
from ..tus.receiving import Terms
from ..tus.records import Upload
from ..tus.uploads import TusUploads
from .app import folder_in
from .exchange import Headers
from .file_documents import Path
from .models import FolderParameters, Model, Switch
from .operation import Answer, Auth, Call, Media, NoModel, Operation
from .pieces import send_pieces, some_of

TAG = "transfers"
_TUS = {"Tus-Resumable": "1.0.0"}


class TokenParameters(Model):
    """By which token."""

    token: str = Field(max_length=65_536)


class DownloadParameters(TokenParameters):
    """What is to be sent."""

    dst_dir: str | None = Field(None, max_length=4000, description="taken and not used")
    archive: Switch = Field(False, description="a folder as a zip")
    no_cache: Switch = Field(False, description="the answer is not to be kept anywhere")


class LinkBody(Model):
    """A link that is to be made."""

    paths: list[Path] = Field(min_length=1, max_length=1000)
    filename: str | None = Field(None, max_length=255, description="of the archive")


class LinkDocument(Model):
    """A link: whoever has it can download until it ends."""

    token: str
    url: str = Field(description="below the address of the API for clients")
    seconds: int


def transfer_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return the operations that a token in the URL allows."""
    routes = _TransferRoutes(core, threads)
    body = Media((OCTETS,), "bytes of the file")
    wrong = (401, 403, 404, 409, 410, 412, 413, 415, 423, 507)
    parameters = TokenParameters

    def operation(method: str, path: str, handler: Any, summary: str, **more: Any) -> Operation:
        return Operation(method, path, handler, summary, tag=TAG, auth=Auth.OPEN, **more)

    return [
        operation(
            "GET",
            "/download",
            routes.download,
            "Download what a token is for, whole or a range",
            parameters=DownloadParameters,
            gives=Media(("application/octet-stream",), "the file, or a zip"),
            also={206: "A range."},
            problems=(401, 403, 404, 409, 412, 416),
            raw=True,
        ),
        operation(
            "GET",
            "/download-archive",
            routes.download_archive,
            "Download files and folders as a zip",
            parameters=parameters,
            gives=Media(("application/zip",), "the archive"),
            problems=(401, 403, 404, 409),
            raw=True,
        ),
        operation(
            "OPTIONS",
            "/upload",
            routes.upload_options,
            "Tell which parts of tus there are",
            status=204,
        ),
        operation(
            "HEAD",
            "/upload",
            routes.upload_head,
            "Tell how much of an upload is kept",
            parameters=parameters,
            problems=wrong,
            request_headers=_TUS,
        ),
        operation(
            "PATCH",
            "/upload",
            routes.upload_patch,
            "Carry an upload on",
            parameters=parameters,
            takes=body,
            status=204,
            problems=wrong,
            request_headers={**_TUS, "Upload-Offset": "where the body goes"},
            response_headers={"Upload-Offset": "bytes that are kept"},
        ),
    ]


def link_operations(core: Core) -> list[Operation]:
    """Return the operation by which a user gives a download away."""
    transfers = Transfers(core.database, core.vfs.transfer_lifetime)

    def link(call: Call[FolderParameters, LinkBody]) -> LinkDocument:
        paths = [names.checked_folder(path) for path in call.body.paths]
        access = core.folders.resolve(call.who, call.parameters.folder, Permission.READ_ONLY)
        for path in paths:
            changes.look(access.files, lying(access.files, path))
        folder = access.folder
        single = len(paths) == 1 and not access.files.info(lying(access.files, paths[0])).directory
        if single:
            claims = {"volume": folder.volume, "vfid": reference_of(folder), "relpath": paths[0]}
            token, route = transfers.issue(call.who, DownloadClaims, claims), "download"
        else:
            token = transfers.issue(
                call.who,
                ArchiveClaims,
                {
                    "volume": folder.volume,
                    "virtual_folder_id": reference_of(folder),
                    "files": [path or "." for path in paths],
                    "filename": call.body.filename,
                },
            )
            route = "download-archive"
        return LinkDocument(
            token=token, url=f"/{route}?token={token}", seconds=core.vfs.transfer_lifetime
        )

    return [
        Operation(
            "POST",
            "/v1/folders/{folder}/links",
            link,
            "Make a link that downloads files and folders for a while",
            parameters=FolderParameters,
            body=LinkBody,
            answer=LinkDocument,
            status=201,
            problems=(409,),
            tag=TAG,
        )
    ]


class _TransferRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._core = core
        self._threads = threads
        self._transfers = Transfers(core.database, core.vfs.transfer_lifetime)
        most = core.vfs.max_upload
        terms = Terms(
            lifetime=core.vfs.upload_lifetime, max_size=None if most is None else int(most)
        )
        self._store = DatabaseUploads(core.database)
        self._tus = TusUploads(self._store, threads, terms)

    # -- downloads

    async def download(self, call: Call[DownloadParameters, NoModel]) -> None:
        wanted = call.parameters

        def look() -> tuple[FolderAccess, str, bool]:
            who, claims = self._transfers.read(wanted.token, DownloadClaims)
            call.exchange.folder = folder_in(claims.vfid)
            access = self._resolved(who, claims.volume, claims.vfid, Permission.READ_ONLY)
            path = names.checked_folder(claims.relpath)
            name = lying(access.files, path)
            return access, name, changes.look(access.files, name).directory

        access, name, is_folder = await on_thread(self._threads, "", look)
        call.exchange.scope.setdefault("state", {})["user"] = access.who.user
        if is_folder:
            if not wanted.archive:
                raise Problem(409, "is-a-folder", "it is a folder; ask with archive=1")
            await self._archive(call, access, [name], None)
            return
        if wanted.no_cache:
            call.exchange.common = [*call.exchange.common, (b"cache-control", b"no-store")]
        await send_file(call.exchange, access.files, name, self._threads)

    async def download_archive(self, call: Call[TokenParameters, NoModel]) -> None:
        def look() -> tuple[FolderAccess, list[str], str | None]:
            who, claims = self._transfers.read(call.parameters.token, ArchiveClaims)
            call.exchange.folder = folder_in(claims.virtual_folder_id)
            access = self._resolved(
                who, claims.volume, claims.virtual_folder_id, Permission.READ_ONLY
            )
            paths = [lying(access.files, names.checked_folder(path)) for path in claims.files]
            return access, paths, claims.filename

        access, paths, filename = await on_thread(self._threads, "", look)
        call.exchange.scope.setdefault("state", {})["user"] = access.who.user
        await self._archive(call, access, paths, filename)

    async def _archive(
        self, call: Call[Any, Any], access: FolderAccess, paths: list[str], filename: str | None
    ) -> None:
        form = archive.Format("zip")

        def begin() -> tuple[Any, list[bytes]]:
            for path in paths:
                changes.look(access.files, path)
            pieces = archive.written(access.files, archive.members(access.files, paths), form)
            return pieces, some_of(pieces)

        pieces, first = await on_thread(self._threads, "", begin)
        usual = paths[0].rpartition("/")[2] if len(paths) == 1 else ""
        saved_as = filename or f"{usual or access.folder.name}.zip"
        headers: Headers = [
            (b"content-type", form.media_type.encode()),
            (b"content-disposition", attachment(saved_as).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send_pieces(call.exchange, self._threads, headers, pieces, first)

    # -- uploads

    async def upload_options(self, _call: Call[NoModel, NoModel]) -> Answer:
        return _answer(self._tus.options())

    async def upload_head(self, call: Call[TokenParameters, NoModel]) -> Answer:
        return await self._upload(call, "HEAD")

    async def upload_patch(self, call: Call[TokenParameters, NoModel]) -> Answer:
        return await self._upload(call, "PATCH")

    async def _upload(self, call: Call[TokenParameters, NoModel], method: str) -> Answer:
        def look() -> tuple[Upload, Space]:
            who, claims = self._transfers.read(call.parameters.token, UploadClaims)
            call.exchange.scope.setdefault("state", {})["user"] = who.user
            call.exchange.folder = folder_in(claims.vfid)
            access = self._resolved(who, claims.volume, claims.vfid, Permission.READ_WRITE)
            upload = self._store.find(claims.session)
            if upload is None and claims.room is not None:
                upload = Upload(
                    claims.session,
                    access.folder.id,
                    who.user,
                    claims.relpath,
                    claims.size,
                    token=claims.room,
                    expires=claims.exp,
                )
            if upload is None or upload.folder != access.folder.id:
                raise not_found("upload")
            return upload, Space(access.files, access.staging)

        request = Request(call.exchange.scope, call.exchange.receive)
        try:
            if method == "HEAD":
                upload, space = await self._threads.run(look)
                reply = await self._tus.head(request, upload, space, lambda part: part)
            else:
                reply = await self._tus.patch_found(request, look)
        except ClientLeft as error:
            raise ClientGone from error
        return _answer(reply)

    def _resolved(
        self, who: Identity, volume: str, reference: str, needed: Permission
    ) -> FolderAccess:
        return resolve_folder(self._core, who, volume, reference, needed)


def _answer(reply: Reply) -> Answer:
    return Answer(status=reply.status, headers=reply.wire())
