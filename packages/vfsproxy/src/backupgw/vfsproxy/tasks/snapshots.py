"""Snapshots: made, brought back, removed.

While one is made or brought back, the folder can be read and not written: what is kept is what the
folder held at one moment. Where the storage makes snapshots itself that takes no time; elsewhere
files are copied, count towards the folder's accounts like all others, and lie out of reach of
whoever has the folder mounted. A copy that failed half-way is removed with its snapshot.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import ObjectNotFound
from backupgw.kvstore.copying import Side
from backupgw.kvstore.walking import walk
from backupgw.runtime.database import Connection, DatabaseConflict
from backupgw.runtime.jobs import Job, JobContext, JobFailed

from .. import audit
from ..folders import catalogue, snapshots
from ..folders.access import require
from ..folders.lifecycle import not_ready
from ..folders.records import Folder, Permission, Status
from ..folders.snapshots import Snapshot, SnapshotStatus
from ..identity import Identity, job_of
from ..names import folder_name
from ..problems import Problem, not_found
from .arguments import SnapshotTask
from .board import key_of
from .working import Removal, copy_tree, ended, working

if TYPE_CHECKING:
    from ..core import Core


def submit_create(
    core: Core, who: Identity, folder_id: str, name: str, lifetime: float | None
) -> tuple[Snapshot, Job]:
    """Have a snapshot made.

    Args:
        lifetime: seconds until it is removed by itself; None: it is not.

    Raises:
        Problem: 409 where there is one of that name, or the folder is not ready.
    """
    name = folder_name(name)
    identity, task = uuid.uuid4().hex, uuid.uuid4().hex

    def work(connection: Connection) -> Snapshot:
        folder, permission = core.folders.look_up(connection, who, folder_id, lock=True)
        require(permission, Permission.READ_WRITE_DELETE)
        if folder.status is not Status.READY:
            raise not_ready(folder)
        now = catalogue.now(connection)
        snapshot = Snapshot(
            id=identity,
            folder=folder_id,
            name=name,
            status=SnapshotStatus.MAKING,
            method=None,
            files=0,
            bytes=0,
            created=now,
            expires=None if lifetime is None else now + lifetime,
            creator=who.user,
            job=task,
        )
        snapshots.add(connection, snapshot)
        audit.note(connection, who, "snapshot.create", folder=folder_id, snapshot=name)
        return snapshot

    try:
        snapshot = core.database.run(work)
    except DatabaseConflict as error:
        raise Problem(
            409, "snapshot-exists", f"the folder has a snapshot {name!r} already"
        ) from error
    arguments = SnapshotTask(folder=folder_id, snapshot=identity, actor=who.user)
    return snapshot, core.tasks.submit(
        "vfs.snapshot_create", arguments, key=key_of(folder_id), id=task
    )


def submit_restore(core: Core, who: Identity, folder_id: str, snapshot: str) -> Job:
    """Have a folder brought back to what it held; what came later is lost.

    Raises:
        Problem: 404, 409.
    """
    return _submit(core, who, folder_id, snapshot, "vfs.snapshot_restore")


def submit_delete(core: Core, who: Identity, folder_id: str, snapshot: str) -> Job:
    """Have a snapshot removed. Raises Problem 404."""
    return _submit(core, who, folder_id, snapshot, "vfs.snapshot_delete")


def _submit(core: Core, who: Identity, folder_id: str, snapshot: str, kind: str) -> Job:
    with core.database.read() as connection:
        _, permission = core.folders.look_up(connection, who, folder_id)
        require(permission, Permission.OWNER)
        found = snapshots.find(connection, folder_id, snapshot)
        if found is None:
            raise not_found("snapshot")
        if kind == "vfs.snapshot_restore" and found.status is not SnapshotStatus.READY:
            raise Problem(409, "snapshot-not-ready", f"the snapshot is {found.status}")
    arguments = SnapshotTask(folder=folder_id, snapshot=snapshot, actor=who.user)
    return core.tasks.submit(kind, arguments, key=key_of(folder_id))


def listed(core: Core, who: Identity, folder_id: str, after: str, limit: int) -> list[Snapshot]:
    """Return a page of a folder's snapshots."""
    with core.database.read() as connection:
        core.folders.look_up(connection, who, folder_id)
        return snapshots.of_folder(connection, folder_id, after, limit)


def _snapshot(core: Core, task: SnapshotTask) -> Snapshot:
    with core.database.read() as connection:
        found = snapshots.find(connection, task.folder, task.snapshot)
    if found is None:
        raise JobFailed("the snapshot is gone")
    return found


class Create:
    """Makes a snapshot."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: SnapshotTask) -> Mapping[str, object]:
        """Copy the folder, or let the storage do it."""
        core = self._core
        snapshot = _snapshot(core, task)
        if snapshot.status is SnapshotStatus.READY:
            return {"files": snapshot.files, "bytes": snapshot.bytes}
        try:
            with working(
                core,
                context,
                task.folder,
                expected=(Status.READY,),
                during=Status.PERFORMING,
                failed=Status.READY,
            ) as folder:
                done = self._make(context, folder, snapshot)
                self._note(snapshot, status=SnapshotStatus.READY, job=None, **done)
                ended(core, folder.id, status=Status.READY, job=None)
        except BaseException:
            self._note(snapshot, status=SnapshotStatus.ERROR)
            raise
        return done

    def _make(
        self, context: JobContext, folder: Folder, snapshot: Snapshot
    ) -> Mapping[str, object]:
        opened = self._core.volumes.of(folder)
        native = opened.volume.snapshots
        if native is not None:
            native.create(folder.path, snapshot.id)
            usage = self._core.accounts.usage(folder.scope)
            return {"method": "native", "files": usage.used.objects, "bytes": usage.used.bytes}
        layer = opened.for_folders([folder])
        target = snapshot.path(folder)
        layer.mkdir(target)
        totals = copy_tree(Side(layer, folder.path), Side(layer, target), context)
        # A disk that copies by itself shares blocks; what the mounted folder's files become later
        # is theirs alone all the same.
        shared = opened.volume.local_root is not None and layer.capabilities.copy
        return {
            "method": "reflink" if shared else "copy",
            "files": totals.copied + totals.present,
            "bytes": totals.copied_bytes + totals.present_bytes,
        }

    def _note(self, snapshot: Snapshot, **values: object) -> None:
        self._core.database.run(
            lambda connection: snapshots.change(connection, snapshot.id, **values),
            idempotent=True,
        )


class Restore:
    """Brings a folder back to a snapshot. A second attempt goes on where the first has ended."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: SnapshotTask) -> Mapping[str, object]:
        """Remove what the snapshot has not, copy what differs."""
        core = self._core
        snapshot = _snapshot(core, task)
        if snapshot.status is not SnapshotStatus.READY:
            raise JobFailed(f"the snapshot is {snapshot.status}")
        with working(
            core,
            context,
            task.folder,
            expected=(Status.READY, Status.ERROR),
            during=Status.PERFORMING,
            failed=Status.ERROR,
        ) as folder:
            opened = core.volumes.of(folder)
            layer = opened.for_folders([folder])
            origin = snapshot.path(folder)
            if snapshot.method == "native":
                assert opened.volume.snapshots is not None  # it made this one
                origin = opened.volume.snapshots.root(folder.path, snapshot.id)
            removed = _remove_others(layer, folder.path, origin, context)
            totals = copy_tree(Side(layer, origin), Side(layer, folder.path), context, exact=True)
            ended(core, folder.id, status=Status.READY, job=None, reason=None)
            with core.database.begin() as connection:
                audit.note(
                    connection,
                    job_of(task.actor),
                    "snapshot.restore",
                    folder=folder.id,
                    snapshot=snapshot.name,
                    removed=removed,
                    copied=totals.copied,
                )
        return {"removed": removed, "copied": totals.copied, "kept": totals.present}


def _remove_others(place: Backend, path: str, origin: str, context: JobContext) -> int:
    """Remove what is in a folder and not in its snapshot, or is there something else."""
    removed = 0
    for found in walk(place, path):
        context.check()
        there = place.info(f"{origin}{found.path[len(path) :]}")
        if there.exists and there.directory == found.info.directory:
            continue
        try:
            if found.left:
                place.rmdir(found.path)
            elif not found.info.directory:
                place.delete(found.path)
                removed += 1
        except ObjectNotFound:
            continue
    return removed


class Delete:
    """Removes a snapshot."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: SnapshotTask) -> Mapping[str, object]:
        """Remove its files, then forget it."""
        core = self._core
        with core.database.read() as connection:
            folder = catalogue.find(connection, task.folder)
            snapshot = snapshots.find(connection, task.folder, task.snapshot)
        if folder is None or snapshot is None:
            return {"files": 0}
        opened = core.volumes.of(folder)
        core.database.run(
            lambda connection: snapshots.change(
                connection, snapshot.id, status=SnapshotStatus.DELETING
            ),
            idempotent=True,
        )
        removal = Removal(context, core.traffic)
        if snapshot.method == "native" and opened.volume.snapshots is not None:
            opened.volume.snapshots.delete(folder.path, snapshot.id)
        else:
            removal.tree(opened.for_folders([folder]), snapshot.path(folder))

        def forget(connection: Connection) -> int:
            snapshots.remove(connection, snapshot.id)
            audit.note(
                connection,
                job_of(task.actor),
                "snapshot.delete",
                folder=folder.id,
                snapshot=snapshot.name,
            )
            return removal.files

        return {"files": context.transact("forget", forget)}
