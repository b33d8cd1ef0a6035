"""Changing what is in a folder: folders within it, names, copies, deletions."""

from __future__ import annotations

from backupgw.runtime.threads import Threads

from ..core import Core
from ..files import changes, names
from ..files.names import lying
from ..folders.access import FolderAccess
from ..folders.records import Permission
from ..problems import Problem
from ..tasks.arguments import DeleteFilesTask
from ..tasks.board import key_of
from ..tus.bodies import Space
from ..tus.database import DatabaseUploads
from ..tus.reaping import end_below
from .file_documents import (
    DeleteFile,
    DeleteFiles,
    DeletePaths,
    DoneDocument,
    EntryDocument,
    MakeFolder,
    Transfer,
    entry_document,
)
from .models import FolderParameters
from .operation import Answer, Call, NoModel, Operation
from .task_documents import TaskGiven


def change_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return the operations that change what is in a folder."""
    routes = _ChangeRoutes(core, threads)
    one = "/v1/folders/{folder}"
    return [
        Operation(
            "DELETE",
            f"{one}/files/{{path*}}",
            routes.delete,
            "Delete a file or folder",
            parameters=DeleteFile,
            answer=DoneDocument,
            problems=(409, 423),
            tag="files",
        ),
        Operation(
            "POST",
            f"{one}/delete",
            routes.delete_several,
            "Delete several files and folders",
            parameters=FolderParameters,
            body=DeleteFiles,
            answer=DoneDocument,
            problems=(409, 423),
            tag="files",
        ),
        Operation(
            "POST",
            f"{one}/delete-async",
            routes.delete_later,
            "Delete files and folders with all that is in them, in the background",
            parameters=FolderParameters,
            body=DeletePaths,
            answer=TaskGiven,
            status=202,
            problems=(409,),
            tag="files",
        ),
        Operation(
            "POST",
            f"{one}/mkdir",
            routes.mkdir,
            "Make a folder within the folder",
            parameters=FolderParameters,
            body=MakeFolder,
            answer=EntryDocument,
            status=201,
            also={200: "It was there."},
            problems=(409, 507),
            tag="files",
        ),
        Operation(
            "POST",
            f"{one}/move",
            routes.move,
            "Rename a file or folder, or move it to another folder",
            parameters=FolderParameters,
            body=Transfer,
            answer=DoneDocument,
            problems=(409, 423, 507),
            tag="files",
        ),
        Operation(
            "POST",
            f"{one}/copy",
            routes.copy,
            "Copy a file or folder, perhaps to another folder",
            parameters=FolderParameters,
            body=Transfer,
            answer=DoneDocument,
            problems=(409, 507),
            tag="files",
        ),
    ]


class _ChangeRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._core = core
        self._folders = core.folders
        self._threads = threads
        self._uploads = DatabaseUploads(core.database)

    def mkdir(self, call: Call[FolderParameters, MakeFolder]) -> Answer:
        wanted = call.body
        name = names.new(wanted.path)
        access = self._folders.resolve(call.who, call.parameters.folder, Permission.READ_WRITE)
        made = changes.make_folder(
            access.files, name, parents=wanted.parents, exist_ok=wanted.exist_ok
        )
        info = access.files.info(name)
        return Answer(entry_document(name, info), status=201 if made else 200)

    def delete(self, call: Call[DeleteFile, NoModel]) -> DoneDocument:
        wanted = call.parameters
        access = self._folders.resolve(call.who, wanted.folder, Permission.READ_WRITE_DELETE)
        name = lying(access.files, names.checked(wanted.path))
        return DoneDocument(done=self._delete(access, name, recursive=wanted.recursive))

    def delete_several(self, call: Call[FolderParameters, DeleteFiles]) -> DoneDocument:
        wanted = call.body
        folder = call.parameters.folder
        access = self._folders.resolve(call.who, folder, Permission.READ_WRITE_DELETE)
        found = [lying(access.files, names.checked(path)) for path in wanted.paths]
        for name in found:
            changes.look(access.files, name)
        done = sum(
            self._delete(access, name, recursive=wanted.recursive) for name in dict.fromkeys(found)
        )
        return DoneDocument(done=done)

    def delete_later(self, call: Call[FolderParameters, DeletePaths]) -> TaskGiven:
        folder = call.parameters.folder
        access = self._folders.resolve(call.who, folder, Permission.READ_WRITE_DELETE)
        found = [lying(access.files, names.checked(path)) for path in call.body.paths]
        for name in found:
            changes.look(access.files, name)
        task = DeleteFilesTask(
            folder=folder,
            actor=call.who.user,
            paths=[*dict.fromkeys(found)],
            recursive=True,
        )
        job = self._core.tasks.submit("vfs.delete_files", task, key=key_of(folder))
        return TaskGiven(task=job.id)

    def _delete(self, access: FolderAccess, name: str, *, recursive: bool) -> int:
        if recursive and changes.look(access.files, name).directory:
            # What they have kept may lie in the folders that are to go.
            end_below(self._uploads, Space(access.files, access.staging), access.folder.id, name)
        return changes.delete(access.files, name, recursive=recursive)

    def move(self, call: Call[FolderParameters, Transfer]) -> DoneDocument:
        source, target = self._ends(call, Permission.READ_WRITE_DELETE)
        other = target.access
        native = None
        if other is not source.access:

            def native(name: str, new_name: str) -> None:
                source.access.move_to(name, other, new_name, if_absent=not call.body.overwrite)

        if self._uploads.below(source.access.folder.id, source.end.name, 1):
            raise Problem(
                409,
                "uploads-under-way",
                f"an upload to {source.end.name!r}, or to below it, is under way; let it end first",
            )
        done = changes.move(source.end, target.end, overwrite=call.body.overwrite, native=native)
        return DoneDocument(done=done)

    def copy(self, call: Call[FolderParameters, Transfer]) -> DoneDocument:
        source, target = self._ends(call, Permission.READ_ONLY)
        other = target.access
        native = None
        if other is not source.access:

            def native(name: str, new_name: str) -> None:
                source.access.copy_to(name, other, new_name)

        done = changes.copy(source.end, target.end, overwrite=call.body.overwrite, native=native)
        return DoneDocument(done=done)

    def _ends(
        self, call: Call[FolderParameters, Transfer], needed: Permission
    ) -> tuple[_Side, _Side]:
        wanted = call.body
        here = call.parameters.folder
        there = wanted.target_folder or here
        new = names.new(wanted.target)
        writing = (
            Permission.READ_WRITE
            if there != here
            else max(needed, Permission.READ_WRITE, key=lambda permission: permission.rank)
        )
        source = self._folders.resolve(call.who, here, needed if there != here else writing)
        target = source if there == here else self._folders.resolve(call.who, there, writing)
        name = lying(source.files, names.checked(wanted.source))
        return _Side(source, name), _Side(target, new)


class _Side:
    """One end of a move or copy, with what may be done there."""

    def __init__(self, access: FolderAccess, name: str) -> None:
        self.access = access
        self.end = changes.End(access.files, access.folder.id, name)
