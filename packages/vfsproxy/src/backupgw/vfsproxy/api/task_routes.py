"""Tasks: begun, told of, followed as server-sent events, called off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from pydantic import Field

from backupgw.runtime.jobs import Job, State, UnknownJob
from backupgw.runtime.threads import Threads

from ..core import Core
from ..folders.lifecycle import Wanted
from ..folders.records import Holder, Kind, Permission
from ..folders.snapshots import Snapshot, SnapshotStatus
from ..tasks import snapshots
from ..tasks.cloning import submit_clone
from ..tasks.ending import submit_purge
from ..tasks.scanning import submit_orphans, submit_scan
from ..tasks.transfer import submit_transfer
from .exchange import Exchange
from .folder_documents import FolderDocument, folder_document
from .models import (
    FolderId,
    FolderName,
    FolderParameters,
    Lifetime,
    Limit,
    Model,
    Page,
    SubjectName,
    VolumeName,
    moment,
    moment_or_none,
)
from .operation import Call, Media, NoModel, Operation
from .task_documents import TaskDocument, TaskGiven, TaskList, task_document

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy ends the connection."""


class TaskParameters(Model):
    """Which task."""

    task: str = Field(pattern=r"^[A-Za-z0-9@:. _-]{1,200}$")


class ListTasks(Model):
    """Which tasks."""

    folder: FolderId | None = Field(None, description="of this one; administrators see all")
    state: list[State] = Field(default=[], description="only these")
    limit: Limit = 100


class SnapshotParameters(FolderParameters):
    """Which snapshot of which folder."""

    snapshot: FolderId


class ListSnapshots(FolderParameters, Page):
    """Which snapshots."""


class VolumeParameters(Model):
    """Which volume."""

    volume: VolumeName


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


class OrphansBody(Model):
    """What is to become of orphans."""

    remove: bool = Field(False, description="remove what nobody knows, for good")


def task_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return the operations on tasks, and those that begin one."""
    return [*_tasks(core, threads), *_folder_tasks(core), *_snapshots(core), *_volumes(core)]


def _tasks(core: Core, threads: Threads) -> list[Operation]:
    routes = _TaskRoutes(core, threads)
    one = "/v1/tasks/{task}"
    return [
        Operation(
            "GET",
            "/v1/tasks",
            routes.list,
            "List the latest tasks of a folder; of all, for administrators",
            parameters=ListTasks,
            answer=TaskList,
            tag="tasks",
        ),
        Operation(
            "GET",
            one,
            routes.find,
            "Tell about a task",
            parameters=TaskParameters,
            answer=TaskDocument,
            tag="tasks",
        ),
        Operation(
            "DELETE",
            one,
            routes.cancel,
            "Call a task off; one that has ended stays as it is",
            parameters=TaskParameters,
            answer=TaskDocument,
            tag="tasks",
        ),
        Operation(
            "GET",
            f"{one}/events",
            routes.events,
            "Follow a task until it has ended",
            parameters=TaskParameters,
            gives=Media(("text/event-stream",), "events `task`, each with a task as JSON"),
            tag="tasks",
            raw=True,
        ),
    ]


def _folder_tasks(core: Core) -> list[Operation]:
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


def _snapshots(core: Core) -> list[Operation]:
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


def _volumes(core: Core) -> list[Operation]:
    routes = _VolumeRoutes(core)
    return [
        Operation(
            "POST",
            "/v1/volumes/{volume}/scan",
            routes.scan,
            "Count a volume and correct the accounts; for administrators",
            parameters=VolumeParameters,
            answer=TaskGiven,
            status=202,
            tag="volumes",
        ),
        Operation(
            "POST",
            "/v1/volumes/{volume}/orphans",
            routes.orphans,
            "Look for folders that nobody knows; for administrators",
            parameters=VolumeParameters,
            body=OrphansBody,
            answer=TaskGiven,
            status=202,
            tag="volumes",
        ),
    ]


class _TaskRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._core = core
        self._threads = threads

    def list(self, call: Call[ListTasks, NoModel]) -> TaskList:
        wanted = call.parameters
        found = self._core.tasks.listed(
            call.who, folder=wanted.folder, states=wanted.state, limit=wanted.limit
        )
        return TaskList(items=[task_document(job) for job in found])

    def find(self, call: Call[TaskParameters, NoModel]) -> TaskDocument:
        return task_document(self._core.tasks.find(call.who, call.parameters.task))

    def cancel(self, call: Call[TaskParameters, NoModel]) -> TaskDocument:
        return task_document(self._core.tasks.cancel(call.who, call.parameters.task))

    async def events(self, call: Call[TaskParameters, NoModel]) -> None:
        tasks, exchange = self._core.tasks, call.exchange
        task = call.parameters.task
        await self._threads.run(tasks.find, call.who, task)
        head = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            # nginx gathers answers into buffers unless it is told not to.
            (b"x-accel-buffering", b"no"),
        ]
        await exchange.start(200, head)
        following = tasks.follow(task)
        try:
            await _tell(exchange, following)
        except UnknownJob:
            pass  # it was removed meanwhile: there is nothing more to tell
        finally:
            await following.aclose()  # type: ignore[attr-defined]  # it is a generator
        await exchange.send_body(b"", more=False)


async def _tell(exchange: Exchange, following: AsyncIterator[Job]) -> None:
    leaving = asyncio.ensure_future(_left(exchange))
    upcoming: asyncio.Future[Job] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(following.__anext__())
            waited: set[asyncio.Future[Any]] = {upcoming, leaving}
            done, _ = await asyncio.wait(
                waited, timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED
            )
            if leaving in done:
                return
            if upcoming not in done:
                await exchange.send_body(b": \n\n", more=True)
                continue
            try:
                job = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            text = task_document(job).model_dump_json()
            await exchange.send_body(
                f"id: {job.version}\nevent: task\ndata: {text}\n\n".encode(), more=True
            )
    finally:
        leaving.cancel()
        if upcoming is not None:
            upcoming.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await upcoming


async def _left(exchange: Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass


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


class _VolumeRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core

    def scan(self, call: Call[VolumeParameters, NoModel]) -> TaskGiven:
        return TaskGiven(task=submit_scan(self._core, call.who, call.parameters.volume).id)

    def orphans(self, call: Call[VolumeParameters, OrphansBody]) -> TaskGiven:
        job = submit_orphans(self._core, call.who, call.parameters.volume, remove=call.body.remove)
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
