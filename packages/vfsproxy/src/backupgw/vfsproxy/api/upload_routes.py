"""Uploads by tus 1.0.0, and how far each of them is."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request

from backupgw.runtime.http.incoming import ClientGone
from backupgw.runtime.threads import Threads

from ..core import Core
from ..files import names
from ..files.incoming import ClientLeft
from ..files.reply import Reply
from ..folders.access import FolderAccess
from ..folders.records import Permission
from ..identity import Identity
from ..problems import Problem, not_found
from ..tus.bodies import Space
from ..tus.database import DatabaseUploads
from ..tus.headers import OCTETS
from ..tus.receiving import Terms
from ..tus.records import Upload
from ..tus.serving import method_of
from ..tus.uploads import TusUploads
from .file_documents import Path
from .models import FolderParameters, Model, moment
from .operation import Answer, Auth, Call, Media, NoModel, Operation

UploadId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="an upload's id")]

_VERSION = {"Tus-Resumable": "1.0.0"}
_CREATING = {
    **_VERSION,
    "Upload-Length": "bytes; or Upload-Defer-Length: 1",
    "Upload-Defer-Length": "1: the length comes with a later PATCH",
    "Upload-Metadata": "filename or path, and overwrite, each in Base64",
    "Upload-Concat": "partial, or final; and the parts' URLs",
    "Upload-Checksum": "algorithm and Base64, of the body",
}
_PATCHING = {
    **_VERSION,
    "Upload-Offset": "where the body goes",
    "Upload-Length": "where it comes late",
    "Upload-Checksum": "algorithm and Base64, of the body",
}
_TELLING = {
    "Tus-Resumable": "1.0.0",
    "Upload-Offset": "bytes that are kept",
    "Upload-Expires": "when an unfinished upload ends",
}


class UploadParameters(Model):
    """Which upload."""

    upload: UploadId


class ListUploads(FolderParameters):
    """Whose uploads."""

    path: Path = ""


class UploadDocument(Model):
    """An upload, and how far it is."""

    id: str
    folder: str
    path: str = Field(description="of the file; empty for a part")
    kind: Literal["whole", "partial", "final"]
    state: Literal["open", "done", "joined"]
    offset: int = Field(ge=0, description="bytes that are kept")
    length: int | None = Field(ge=0, description="bytes that it will have, where that is known")
    created: datetime
    expires: datetime


class UploadList(Model):
    """Uploads that are under way."""

    items: list[UploadDocument]


def upload_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return the operations of tus."""
    routes = _UploadRoutes(core, threads)
    some, one = "/v1/folders/{folder}/uploads", "/v1/uploads/{upload}"
    body = Media((OCTETS,), "bytes of the file")
    wrong = (404, 409, 410, 412, 413, 415, 423, 460, 507)

    def operation(method: str, path: str, handler: Any, summary: str, **more: Any) -> Operation:
        return Operation(method, path, handler, summary, tag="uploads", **more)

    return [
        operation(
            "OPTIONS",
            some,
            routes.options,
            "Tell which parts of tus there are",
            parameters=FolderParameters,
            status=204,
            auth=Auth.OPEN,
        ),
        operation(
            "POST",
            some,
            routes.create,
            "Begin an upload, or join parts",
            parameters=FolderParameters,
            takes=body,
            status=201,
            problems=wrong,
            request_headers=_CREATING,
            response_headers={**_TELLING, "Location": "the upload"},
        ),
        operation(
            "GET",
            some,
            routes.list,
            "List uploads that are under way",
            parameters=ListUploads,
            answer=UploadList,
            problems=(409,),
        ),
        operation(
            "OPTIONS",
            one,
            routes.options_of_one,
            "Tell which parts of tus there are",
            parameters=UploadParameters,
            status=204,
            auth=Auth.OPEN,
        ),
        operation(
            "HEAD",
            one,
            routes.head,
            "Tell how much of an upload is kept",
            parameters=UploadParameters,
            problems=wrong,
            request_headers=_VERSION,
            response_headers=_TELLING,
        ),
        operation(
            "GET",
            one,
            routes.inspect,
            "Tell about an upload, without disturbing it",
            parameters=UploadParameters,
            answer=UploadDocument,
        ),
        operation(
            "PATCH",
            one,
            routes.patch,
            "Carry an upload on",
            parameters=UploadParameters,
            takes=body,
            status=204,
            problems=wrong,
            request_headers=_PATCHING,
            response_headers=_TELLING,
        ),
        operation(
            "DELETE",
            one,
            routes.delete,
            "Give an upload up",
            parameters=UploadParameters,
            status=204,
            problems=wrong,
            request_headers=_VERSION,
        ),
        operation(
            "POST",
            one,
            routes.meant,
            "PATCH, HEAD or DELETE for clients that can only POST",
            parameters=UploadParameters,
            takes=body,
            status=204,
            also={200: "As HEAD."},
            problems=wrong,
            request_headers={**_PATCHING, "X-HTTP-Method-Override": "PATCH, HEAD or DELETE"},
            response_headers=_TELLING,
        ),
    ]


class _UploadRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._core = core
        self._threads = threads
        most = core.vfs.max_upload
        terms = Terms(
            lifetime=core.vfs.upload_lifetime, max_size=None if most is None else int(most)
        )
        self._store = DatabaseUploads(core.database)
        self._tus = TusUploads(self._store, threads, terms)

    # -- a folder's

    async def options(self, _call: Call[FolderParameters, NoModel]) -> Answer:
        return _answer(self._tus.options())

    async def create(self, call: Call[FolderParameters, NoModel]) -> Answer:
        request = _request(call)
        wanted = self._tus.wanted(request)

        def look() -> tuple[Space, str]:
            access = self._core.folders.resolve(
                call.who, call.parameters.folder, Permission.READ_WRITE
            )
            return _space(access), access.folder.id

        try:
            reply = await self._tus.create_found(
                request, wanted, look, owner=call.who.user, url_of=_url_of
            )
        except ClientLeft as error:
            raise ClientGone from error
        return _answer(reply)

    def list(self, call: Call[ListUploads, NoModel]) -> UploadList:
        wanted = call.parameters
        access = self._core.folders.resolve(call.who, wanted.folder, Permission.READ_ONLY)
        path = names.checked_folder(wanted.path)
        found = self._store.below(access.folder.id, path, 1000)
        return UploadList(items=[_document(upload) for upload in found])

    # -- one

    async def options_of_one(self, _call: Call[UploadParameters, NoModel]) -> Answer:
        return _answer(self._tus.options())

    async def head(self, call: Call[UploadParameters, NoModel]) -> Answer:
        return await self._do(call, "HEAD")

    async def patch(self, call: Call[UploadParameters, NoModel]) -> Answer:
        return await self._do(call, "PATCH")

    async def delete(self, call: Call[UploadParameters, NoModel]) -> Answer:
        return await self._do(call, "DELETE")

    async def meant(self, call: Call[UploadParameters, NoModel]) -> Answer:
        return await self._do(call, method_of(_request(call)))

    async def inspect(self, call: Call[UploadParameters, NoModel]) -> UploadDocument:
        upload, _ = await self._threads.run(self._found, call, Permission.READ_ONLY)
        return _document(upload)

    async def _do(self, call: Call[UploadParameters, NoModel], method: str) -> Answer:
        request = _request(call)

        def look() -> tuple[Upload, Space]:
            upload, access = self._found(call, Permission.READ_WRITE)
            return upload, _space(access)

        try:
            match method:
                case "PATCH":
                    reply = await self._tus.patch_found(request, look)
                case "HEAD":
                    upload, space = await self._threads.run(look)
                    reply = await self._tus.head(request, upload, space, _url_of)
                case "DELETE":
                    upload, space = await self._threads.run(look)
                    reply = await self._tus.delete(request, upload, space)
                case _:
                    raise Problem(
                        405, "method", "an upload has PATCH, HEAD and DELETE", headers=_ALLOW
                    )
        except ClientLeft as error:
            raise ClientGone from error
        return _answer(reply)

    def _found(
        self, call: Call[UploadParameters, NoModel], needed: Permission
    ) -> tuple[Upload, FolderAccess]:
        """Return an upload that this client may see, and its folder. Blocks."""
        upload = self._store.find(call.parameters.upload)
        if upload is None or not _is_own(call.who, upload):
            raise not_found("upload")
        return upload, self._core.folders.resolve(call.who, upload.folder, needed)


_ALLOW = [(b"allow", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST")]


def _is_own(who: Identity, upload: Upload) -> bool:
    return who.manager or who.user == upload.owner


def _space(access: FolderAccess) -> Space:
    return Space(access.files, access.staging)


def _request(call: Call[Any, Any]) -> Request:
    return Request(call.exchange.scope, call.exchange.receive)


def _url_of(upload_id: str) -> str:
    return f"/v1/uploads/{upload_id}"


def _answer(reply: Reply) -> Answer:
    return Answer(status=reply.status, headers=reply.wire())


def _document(upload: Upload) -> UploadDocument:
    # That its last request may be at giving it its name is nobody's business.
    state = "open" if upload.state == "ending" else upload.state.value
    return UploadDocument.model_validate(
        {
            "id": upload.id,
            "folder": upload.folder,
            "path": upload.name,
            "kind": upload.kind.value,
            "state": state,
            "offset": upload.offset,
            "length": upload.length,
            "created": moment(upload.created),
            "expires": moment(upload.expires),
        }
    )
