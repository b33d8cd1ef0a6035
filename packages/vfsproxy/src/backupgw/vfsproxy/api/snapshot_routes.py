"""Snapshots of folders: listed, made, brought back, removed."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from ..core import Core
from ..folders.snapshots import Snapshot, SnapshotStatus
from ..tasks import snapshots
from .models import (
    FolderId,
    FolderName,
    FolderParameters,
    Lifetime,
    Model,
    Page,
    moment,
    moment_or_none,
)
from .operation import Call, NoModel, Operation
from .task_documents import TaskGiven


class SnapshotParameters(FolderParameters):
    """Which snapshot of which folder."""

    snapshot: FolderId


class ListSnapshots(FolderParameters, Page):
    """Which snapshots."""


class SnapshotBody(Model):
    """The snapshot that is to be made."""

    name: FolderName
    lifetime: Lifetime | None = Field(None, description="seconds until it is removed by itself")


class SnapshotDocument(Model):
    """What a folder held at a moment."""

    id: str
    name: str
    status: SnapshotStatus
    method: str | None = Field(description="native, reflink or copy; null while it is made")
    files: int
    bytes: int
    created: datetime
    expires: datetime | None
    creator: str


class SnapshotMade(TaskGiven):
    """The snapshot that is being made."""

    snapshot: SnapshotDocument


class SnapshotList(Model):
    """A page of snapshots."""

    items: list[SnapshotDocument]
    next: str | None


def snapshot_operations(core: Core) -> list[Operation]:
    """Return the operations on snapshots."""
    routes = _SnapshotRoutes(core)
    every = "/v1/folders/{folder}/snapshots"
    one = f"{every}/{{snapshot}}"
    return [
        Operation(
            "GET",
            every,
            routes.list,
            "List a folder's snapshots",
            parameters=ListSnapshots,
            answer=SnapshotList,
            tag="snapshots",
        ),
        Operation(
            "POST",
            every,
            routes.create,
            "Keep what a folder holds now",
            parameters=FolderParameters,
            body=SnapshotBody,
            answer=SnapshotMade,
            status=202,
            problems=(409,),
            tag="snapshots",
        ),
        Operation(
            "POST",
            f"{one}/restore",
            routes.restore,
            "Bring a folder back to what it held; what came later is lost",
            parameters=SnapshotParameters,
            answer=TaskGiven,
            status=202,
            problems=(409,),
            tag="snapshots",
        ),
        Operation(
            "DELETE",
            one,
            routes.delete,
            "Remove a snapshot",
            parameters=SnapshotParameters,
            answer=TaskGiven,
            status=202,
            tag="snapshots",
        ),
    ]


class _SnapshotRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core

    def list(self, call: Call[ListSnapshots, NoModel]) -> SnapshotList:
        wanted = call.parameters
        found = snapshots.listed(self._core, call.who, wanted.folder, wanted.after, wanted.limit)
        more = found[-1].id if len(found) == wanted.limit else None
        return SnapshotList(items=[_snapshot(each) for each in found], next=more)

    def create(self, call: Call[FolderParameters, SnapshotBody]) -> SnapshotMade:
        snapshot, job = snapshots.submit_create(
            self._core, call.who, call.parameters.folder, call.body.name, call.body.lifetime
        )
        return SnapshotMade(task=job.id, snapshot=_snapshot(snapshot))

    def restore(self, call: Call[SnapshotParameters, NoModel]) -> TaskGiven:
        wanted = call.parameters
        job = snapshots.submit_restore(self._core, call.who, wanted.folder, wanted.snapshot)
        return TaskGiven(task=job.id)

    def delete(self, call: Call[SnapshotParameters, NoModel]) -> TaskGiven:
        wanted = call.parameters
        job = snapshots.submit_delete(self._core, call.who, wanted.folder, wanted.snapshot)
        return TaskGiven(task=job.id)


def _snapshot(snapshot: Snapshot) -> SnapshotDocument:
    return SnapshotDocument(
        id=snapshot.id,
        name=snapshot.name,
        status=snapshot.status,
        method=snapshot.method,
        files=snapshot.files,
        bytes=snapshot.bytes,
        created=moment(snapshot.created),
        expires=moment_or_none(snapshot.expires),
        creator=snapshot.creator,
    )
