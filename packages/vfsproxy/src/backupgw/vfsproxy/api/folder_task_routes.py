"""What takes long with a whole folder: it is purged, cloned, given away."""

from __future__ import annotations

from pydantic import Field

from ..core import Core
from ..folders.lifecycle import Wanted
from ..folders.records import Holder, Kind, Permission
from ..tasks.cloning import submit_clone
from ..tasks.ending import submit_purge
from ..tasks.transfer import submit_transfer
from .folder_documents import FolderDocument, folder_document
from .models import FolderName, FolderParameters, Lifetime, Model, SubjectName, VolumeName
from .operation import Call, NoModel, Operation
from .task_documents import TaskGiven


class CloneBody(Model):
    """The folder that is to be made."""

    name: FolderName
    group: SubjectName | None = None
    volume: VolumeName | None = Field(None, description="default the source's")
    lifetime: Lifetime | None = None


class ClonedDocument(TaskGiven):
    """The new folder, which can be used when the task is done."""

    folder: FolderDocument


class TransferBody(Model):
    """Who is to own the folder."""

    type: Kind
    owner: SubjectName


def folder_task_operations(core: Core) -> list[Operation]:
    """Return the operations that begin a task with a folder."""
    routes = _FolderTaskRoutes(core)
    one = "/v1/folders/{folder}"
    return [
        Operation(
            "POST",
            f"{one}/purge",
            routes.purge,
            "Remove a deleted folder for good",
            parameters=FolderParameters,
            answer=TaskGiven,
            status=202,
            problems=(409,),
            tag="tasks",
        ),
        Operation(
            "POST",
            f"{one}/clone",
            routes.clone,
            "Make a folder with the same files",
            parameters=FolderParameters,
            body=CloneBody,
            answer=ClonedDocument,
            status=202,
            problems=(409,),
            tag="tasks",
        ),
        Operation(
            "POST",
            f"{one}/transfer",
            routes.transfer,
            "Give a folder to another owner",
            parameters=FolderParameters,
            body=TransferBody,
            answer=TaskGiven,
            status=202,
            problems=(409,),
            tag="tasks",
        ),
    ]


class _FolderTaskRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core

    def purge(self, call: Call[FolderParameters, NoModel]) -> TaskGiven:
        return TaskGiven(task=submit_purge(self._core, call.who, call.parameters.folder).id)

    def clone(self, call: Call[FolderParameters, CloneBody]) -> ClonedDocument:
        body = call.body
        with self._core.database.read() as connection:
            source, _ = self._core.folders.look_up(connection, call.who, call.parameters.folder)
        wanted = Wanted(
            name=body.name,
            holder=None if body.group is None else Holder(Kind.GROUP, body.group),
            volume=body.volume or source.volume,
            lifetime=body.lifetime,
        )
        folder, job = submit_clone(self._core, call.who, source.id, wanted)
        return ClonedDocument(
            task=job.id, folder=folder_document(self._core, folder, Permission.OWNER)
        )

    def transfer(self, call: Call[FolderParameters, TransferBody]) -> TaskGiven:
        to = Holder(call.body.type, call.body.owner)
        return TaskGiven(task=submit_transfer(self._core, call.who, call.parameters.folder, to).id)
