"""What has had its time goes, and what was left in the middle of something is told as such."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import sqlalchemy as sa

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.database import Connection
from backupgw.runtime.database.tables.vfs import vfs_folders, vfs_snapshots
from backupgw.runtime.jobs import JobContext, UnknownJob

from .. import audit
from ..folders import catalogue
from ..folders.lifecycle import Lifecycle
from ..folders.records import Folder, Status
from ..identity import job_of
from ..problems import Problem
from .arguments import CleanupTask, FolderTask, SnapshotTask
from .board import key_of
from .uploads import reap_uploads
from .working import ended

if TYPE_CHECKING:
    from ..core import Core

log = logging.getLogger(__name__)

BATCH = 1000
"""Folders looked after in one run; the rest waits for the next."""
ALONE = 600.0
"""Seconds after which a folder that is worked on must have a task that does so."""

_WORKED_ON = (Status.PERFORMING, Status.CLONING, Status.DELETE_ONGOING)


class Cleanup:
    """Looks after everything by the calendar."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: CleanupTask) -> Mapping[str, object]:
        """Return how many of what were looked after."""
        core = self._core
        who = job_of(task.actor)
        with core.database.read() as connection:
            now = catalogue.now(connection)
            expired = _folders(
                connection, vfs_folders.c.expires < now, statuses=(Status.READY, Status.ERROR)
            )
            old = _folders(
                connection,
                vfs_folders.c.deleted <= now - core.vfs.keep_deleted,
                statuses=(Status.DELETE_PENDING, Status.DELETE_ERROR),
            )
            alone = _folders(connection, vfs_folders.c.changed < now - ALONE, statuses=_WORKED_ON)
            snapshots = connection.execute(
                sa.select(vfs_snapshots.c.id, vfs_snapshots.c.folder)
                .where(vfs_snapshots.c.expires < now)
                .limit(BATCH)
            ).all()
        for folder in expired:
            context.check()
            try:
                Lifecycle(core).delete(who, folder.id)
            except Problem as problem:
                log.info("the folder %s has expired, but %s", folder.id, problem)
        for folder in old:
            core.tasks.submit(
                "vfs.purge",
                FolderTask(folder=folder.id, actor=task.actor),
                key=key_of(folder.id),
                unique=True,
            )
        for snapshot, folder_id in snapshots:
            core.tasks.submit(
                "vfs.snapshot_delete",
                SnapshotTask(folder=folder_id, snapshot=snapshot, actor=task.actor),
                key=key_of(folder_id),
                unique=True,  # the others of the folder are next time's
            )
        stuck = [folder for folder in alone if self._release(folder)]
        uploads = reap_uploads(core, context, task.actor)
        reaped = self._reap(context)
        core.database.run(lambda connection: audit.forget_old(connection, now), idempotent=True)
        return {
            "expired": len(expired),
            "purged": len(old),
            "snapshots": len(snapshots),
            "stuck": len(stuck),
            "uploads": uploads,
            "reaped": reaped,
        }

    def _release(self, folder: Folder) -> bool:
        """Let a folder go whose task is gone; return whether it was one."""
        if folder.job is not None:
            try:
                if not self._core.tasks.jobs.find(folder.job).state.finished:
                    return False
            except UnknownJob:
                pass
        elif any(
            not job.state.finished
            for job in self._core.tasks.jobs.list(key=key_of(folder.id), limit=10)
        ):
            return False  # it is still to begin
        over = Status.DELETE_ERROR if folder.status is Status.DELETE_ONGOING else Status.ERROR
        ended(self._core, folder.id, status=over, reason="the task that worked on it is gone")
        log.warning("the folder %s was %s, and nothing did it", folder.id, folder.status)
        return True

    def _reap(self, context: JobContext) -> int:
        reaped = 0
        for name, opened in self._core.volumes.items():
            context.check()
            try:
                reaped += opened.counted.reap(self._core.vfs.upload_lifetime)
            except BackendError as error:
                log.warning("%s: what dead uploads left stays for now: %s", name, error)
        return reaped


def _folders(
    connection: Connection, where: sa.ColumnElement[bool], statuses: tuple[Status, ...]
) -> list[Folder]:
    query = sa.select(vfs_folders).where(
        where, vfs_folders.c.status.in_([status.value for status in statuses])
    )
    return [catalogue.folder_of(row) for row in connection.execute(query.limit(BATCH))]
