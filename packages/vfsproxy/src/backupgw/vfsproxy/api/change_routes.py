"""Changing what is in a folder: folders within it, names, copies, deletions."""

from __future__ import annotations

from ..core import Core
from ..file_changes import FileChanges
from ..files import changes, names
from ..files.names import lying
from ..folders.access import FolderAccess
from ..folders.records import Permission
from ..tasks.arguments import DeleteFilesTask
from ..tasks.board import key_of
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


def change_operations(core: Core) -> list[Operation]:
    """Return the operations that change what is in a folder."""
    routes = _ChangeRoutes(core)
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
    def __init__(self, core: Core) -> None:
        self._core = core
        self._folders = core.folders
        self._changes = FileChanges(core)

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
        done = self._changes.delete(access, wanted.path, recursive=wanted.recursive)
        return DoneDocument(done=done)

    def delete_several(self, call: Call[FolderParameters, DeleteFiles]) -> DoneDocument:
        wanted = call.body
        folder = call.parameters.folder
        access = self._folders.resolve(call.who, folder, Permission.READ_WRITE_DELETE)
        found = [lying(access.files, names.checked(path)) for path in wanted.paths]
        for name in found:
            changes.look(access.files, name)
        done = sum(
            self._changes.delete(access, name, recursive=wanted.recursive)
            for name in dict.fromkeys(found)
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

    def move(self, call: Call[FolderParameters, Transfer]) -> DoneDocument:
        wanted = call.body
        source, target = self._ends(call, Permission.READ_WRITE_DELETE)
        done = self._changes.move(
            source, wanted.source, target, wanted.target, overwrite=wanted.overwrite
        )
        return DoneDocument(done=done)

    def copy(self, call: Call[FolderParameters, Transfer]) -> DoneDocument:
        wanted = call.body
        source, target = self._ends(call, Permission.READ_ONLY)
        done = self._changes.copy(
            source, wanted.source, target, wanted.target, overwrite=wanted.overwrite
        )
        return DoneDocument(done=done)

    def _ends(
        self, call: Call[FolderParameters, Transfer], needed: Permission
    ) -> tuple[FolderAccess, FolderAccess]:
        here = call.parameters.folder
        there = call.body.target_folder or here
        writing = Permission.READ_WRITE
        if there == here:
            writing = max(needed, writing, key=lambda permission: permission.rank)
        source = self._folders.resolve(call.who, here, needed if there != here else writing)
        target = source if there == here else self._folders.resolve(call.who, there, writing)
        return source, target
