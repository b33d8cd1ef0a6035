"""Files in folders, for managers of Backend.AI, which have no other way to them than by JSON.

Other than in the original nothing is replaced unasked (409), no link is followed, and a list is
whole however long it is: it is sent while it is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.names import InvalidName
from backupgw.runtime.threads import Threads

from ..api.exchange import JSON
from ..api.operation import Answer, Call, Media, NoModel, Operation
from ..api.pieces import send_pieces, some_of
from ..core import Core
from ..file_changes import FileChanges
from ..files import changes, names
from ..files.calling import on_thread
from ..files.download import send_file
from ..files.names import lying
from ..files.refusals import refusal_of
from ..folders.access import FolderAccess
from ..folders.records import Permission
from ..problems import Problem, problem_of
from ..tasks.arguments import DeleteFilesTask
from ..tasks.board import key_of
from ..transfers import LEEWAY, ArchiveClaims, DownloadClaims, Transfers, UploadClaims
from ..tus.bodies import Space
from ..tus.database import DatabaseUploads
from ..tus.receiving import Terms
from ..tus.uploads import TusUploads
from .documents import FolderBody, TaskAnswer
from .file_documents import (
    ArchiveBody,
    DeleteBody,
    DownloadBody,
    ListBody,
    MkdirAnswer,
    MkdirBody,
    MkdirItem,
    MkdirResult,
    MoveBody,
    PathBody,
    RenameBody,
    TokenAnswer,
    UploadBody,
)
from .references import TAG, resolve_folder

_FILE_MODE, _FOLDER_MODE = 0o100644, 0o040755
"""What is told of every file and folder: places have no permission bits of their own."""


def manager_file_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return Backend.AI's operations on files."""
    routes, tokens = _FileRoutes(core, threads), _TokenRoutes(core, threads)

    def operation(name: str, handler: Any, summary: str, **more: Any) -> Operation:
        more.setdefault("problems", (404, 409))
        return Operation("POST", f"/folder/file/{name}", handler, summary, tag=TAG, **more)

    return [
        operation(
            "mkdir",
            routes.mkdir,
            "Make folders",
            body=MkdirBody,
            answer=MkdirAnswer,
            also={207: "Some could be made.", 422: "None could be made."},
        ),
        operation(
            "list",
            routes.list,
            "List a folder",
            body=ListBody,
            gives=Media(("application/json",), "items, each with name, type and stat"),
            raw=True,
        ),
        operation("rename", routes.rename, "Rename a file", body=RenameBody, status=204),
        operation("move", routes.move, "Move a file", body=MoveBody, status=204),
        operation(
            "fetch",
            routes.fetch,
            "Read a file",
            body=PathBody,
            gives=Media(("application/octet-stream",), "the file"),
            raw=True,
        ),
        operation("delete", routes.delete, "Delete files", body=DeleteBody, answer=NoModel),
        operation(
            "delete-async",
            routes.delete_async,
            "Have files deleted",
            body=DeleteBody,
            answer=TaskAnswer,
            status=202,
        ),
        operation(
            "download",
            tokens.download,
            "Make a token that downloads a file",
            body=DownloadBody,
            answer=TokenAnswer,
        ),
        operation(
            "archive-download-token",
            tokens.archive,
            "Make a token that downloads several",
            body=ArchiveBody,
            answer=TokenAnswer,
        ),
        operation(
            "upload",
            tokens.upload,
            "Begin an upload, and make the token that it goes on by",
            body=UploadBody,
            answer=TokenAnswer,
            problems=(404, 409, 413, 507),
        ),
    ]


def _resolved(core: Core, call: Call[Any, Any], needed: Permission) -> FolderAccess:
    body: FolderBody = call.body
    return resolve_folder(core, call.who, body.volume, body.vfid, needed)


class _FileRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._core = core
        self._threads = threads

    def mkdir(self, call: Call[NoModel, MkdirBody]) -> Answer:
        access = _resolved(self._core, call, Permission.READ_WRITE)
        body = call.body
        paths = body.relpath if isinstance(body.relpath, list) else [body.relpath]
        success: list[MkdirItem] = []
        failed: list[MkdirItem] = []
        first: Problem | None = None
        for path in paths:
            try:
                changes.make_folder(
                    access.files, names.new(path), parents=body.parents, exist_ok=body.exist_ok
                )
                success.append(MkdirItem(item=path))
            except (Problem, BackendError, InvalidName) as error:
                problem = problem_of(error, "mkdir")
                first = first or problem
                failed.append(MkdirItem(item=path, msg=problem.detail, error_code=problem.code))
        if first is not None and not isinstance(body.relpath, list):
            raise first
        status = 200 if not failed else 207 if success else 422
        return Answer(
            MkdirAnswer(results=MkdirResult(success=success, failed=failed)), status=status
        )

    async def list(self, call: Call[NoModel, ListBody]) -> None:
        def begin() -> tuple[Iterator[bytes], list[bytes]]:
            access = _resolved(self._core, call, Permission.READ_ONLY)
            path = lying(access.files, names.checked_folder(call.body.relpath))
            info = changes.look(access.files, path) if path else None
            if info is not None and not info.directory:
                raise Problem(409, "not-a-folder", "it is a file")
            pieces = _listed(access.files.list(path))
            return pieces, some_of(pieces)

        pieces, first = await on_thread(self._threads, call.body.relpath, begin)
        await send_pieces(call.exchange, self._threads, [JSON], pieces, first)

    def rename(self, call: Call[NoModel, RenameBody]) -> None:
        if "/" in call.body.new_name:
            raise Problem(400, "invalid-name", "a new name has no slash")
        above = names.checked(call.body.relpath).rpartition("/")[0]
        target = f"{above}/{call.body.new_name}" if above else call.body.new_name
        self._moved(call, call.body.relpath, target)

    def move(self, call: Call[NoModel, MoveBody]) -> None:
        self._moved(call, call.body.src_relpath, call.body.dst_relpath)

    def _moved(self, call: Call[Any, Any], source: str, target: str) -> None:
        access = _resolved(self._core, call, Permission.READ_WRITE_DELETE)
        FileChanges(self._core).move(access, source, access, target, overwrite=False)

    async def fetch(self, call: Call[NoModel, PathBody]) -> None:
        def look() -> tuple[FolderAccess, str]:
            access = _resolved(self._core, call, Permission.READ_ONLY)
            return access, lying(access.files, names.checked(call.body.relpath))

        access, name = await on_thread(self._threads, call.body.relpath, look)
        await send_file(call.exchange, access.files, name, self._threads)

    def delete(self, call: Call[NoModel, DeleteBody]) -> NoModel:
        access = _resolved(self._core, call, Permission.READ_WRITE_DELETE)
        found = [lying(access.files, names.checked(path)) for path in call.body.relpaths]
        for name in found:
            changes.look(access.files, name)
        for name in dict.fromkeys(found):
            FileChanges(self._core).delete(access, name, recursive=call.body.recursive)
        return NoModel()

    def delete_async(self, call: Call[NoModel, DeleteBody]) -> TaskAnswer:
        access = _resolved(self._core, call, Permission.READ_WRITE_DELETE)
        paths = [names.checked(path) for path in call.body.relpaths]
        job = self._core.tasks.submit(
            "vfs.delete_files",
            DeleteFilesTask(
                folder=access.folder.id,
                actor=call.who.user,
                paths=paths,
                recursive=call.body.recursive,
            ),
            key=key_of(access.folder.id),
        )
        return TaskAnswer(bgtask_id=job.id)


def _listed(entries: Iterator[ItemInfo]) -> Iterator[bytes]:
    yield b'{"items":['
    between = b""
    for info in entries:
        yield between + json.dumps(_item(info)).encode()
        between = b","
    yield b"]}"


def _item(info: ItemInfo) -> dict[str, object]:
    changed = datetime.fromtimestamp(info.mtime, UTC).isoformat()
    return {
        "name": info.name,
        "type": "DIRECTORY" if info.directory else "FILE",
        "stat": {
            "mode": _FOLDER_MODE if info.directory else _FILE_MODE,
            "size": info.size,
            "created": changed,
            "modified": changed,
        },
        "symlink_target": "",
    }


class _TokenRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._core = core
        self._threads = threads
        self._transfers = Transfers(core.database, core.vfs.transfer_lifetime)
        most = core.vfs.max_upload
        terms = Terms(
            lifetime=core.vfs.upload_lifetime, max_size=None if most is None else int(most)
        )
        self._tus = TusUploads(DatabaseUploads(core.database), threads, terms)
        self._room = core.vfs.transfer_lifetime + 2 * LEEWAY
        """Seconds that the room for an upload is kept that a token has been given for."""

    def download(self, call: Call[NoModel, DownloadBody]) -> TokenAnswer:
        access = _resolved(self._core, call, Permission.READ_ONLY)
        path = names.checked_folder(call.body.relpath)
        info = changes.look(access.files, lying(access.files, path))
        if info.directory and not call.body.archive:
            raise Problem(409, "is-a-folder", "it is a folder; ask with archive")
        claims = {"volume": call.body.volume, "vfid": call.body.vfid, "relpath": path or "."}
        return TokenAnswer(token=self._transfers.issue(call.who, DownloadClaims, claims))

    def archive(self, call: Call[NoModel, ArchiveBody]) -> TokenAnswer:
        access = _resolved(self._core, call, Permission.READ_ONLY)
        paths = [names.checked_folder(path) for path in call.body.files]
        for path in paths:
            changes.look(access.files, lying(access.files, path))
        claims = {
            "volume": call.body.volume,
            "virtual_folder_id": call.body.vfid,
            "files": [path or "." for path in paths],
            "filename": call.body.filename,
        }
        return TokenAnswer(token=self._transfers.issue(call.who, ArchiveClaims, claims))

    def upload(self, call: Call[NoModel, UploadBody]) -> TokenAnswer:
        body = call.body
        name = names.new(body.relpath)
        access = _resolved(self._core, call, Permission.READ_WRITE)
        space = Space(access.files, access.staging)
        folder, owner = access.folder.id, call.who.user
        try:
            expected = self._tus.expect(
                space, folder=folder, owner=owner, name=name, length=body.size, seconds=self._room
            )
            upload = expected or self._tus.add(
                space, folder=folder, owner=owner, name=name, length=body.size
            )
        except (BackendError, InvalidName) as error:
            raise refusal_of(error, name) from error
        claims = {
            "volume": body.volume,
            "vfid": body.vfid,
            "relpath": name,
            "size": body.size,
            "session": upload.id,
            "room": None if expected is None else expected.token,
        }
        return TokenAnswer(token=self._transfers.issue(call.who, UploadClaims, claims))
