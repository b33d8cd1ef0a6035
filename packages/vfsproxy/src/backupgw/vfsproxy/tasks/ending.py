"""Folders for good: purged, with everything they held."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

import sqlalchemy as sa

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.ledger import Limit
from backupgw.runtime.database import Connection
from backupgw.runtime.database.tables.vfs import vfs_folders
from backupgw.runtime.jobs import Job, JobContext, JobFailed

from .. import audit
from ..event_records import FolderPurged
from ..folders import catalogue
from ..folders.access import require
from ..folders.lifecycle import not_ready
from ..folders.records import Folder, Permission, Status
from ..identity import Identity, job_of
from .arguments import FolderTask
from .board import key_of
from .uploads import end_uploads
from .working import Removal, working

if TYPE_CHECKING:
    from ..core import Core

log = logging.getLogger(__name__)

PURGEABLE = (Status.DELETE_PENDING, Status.DELETE_ERROR, Status.DELETE_ONGOING)


def submit_purge(core: Core, who: Identity, folder_id: str) -> Job:
    """Have a deleted folder removed for good.

    Raises:
        Problem: 409 where it is not deleted.
    """
    with core.database.read() as connection:
        folder, permission = core.folders.look_up(connection, who, folder_id)
    require(permission, Permission.OWNER)
    if folder.status not in PURGEABLE:
        raise not_ready(folder)
    return core.tasks.submit(
        "vfs.purge",
        FolderTask(folder=folder_id, actor=who.user),
        key=key_of(folder_id),
        unique=True,
    )


class Purge:
    """What the task does. A second attempt goes on where the first has ended."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: FolderTask) -> Mapping[str, object]:
        """Remove files, staged uploads and snapshots, then the folder itself."""
        core = self._core
        with core.database.read() as connection:
            if catalogue.find(connection, task.folder) is None:
                return {"files": 0}  # an attempt before this one was just not noted as done
        with working(
            core,
            context,
            task.folder,
            expected=PURGEABLE,
            during=Status.DELETE_ONGOING,
            failed=Status.DELETE_ERROR,
        ) as folder:
            with core.database.read() as connection:
                if _is_being_cloned(connection, folder.id):
                    raise JobFailed("the folder is being cloned", retry=True)
            end_uploads(core, folder, task.actor)
            files = self._remove(context, folder)

            def forget(connection: Connection) -> int:
                catalogue.remove(connection, folder.id)
                audit.note(
                    connection,
                    job_of(task.actor),
                    "folder.purge",
                    folder=folder.id,
                    name=folder.name,
                    files=files,
                )
                return files

            files = context.transact("forget", forget)
        core.accounts.ledger.set_limit(folder.scope, Limit())
        log.info("folder purged", extra={"vfolder_id": folder.id, "operation": "purge"})
        core.publish(
            FolderPurged(
                vfolder_id=folder.id, name=folder.name, owner=str(folder.holder), files=files
            )
        )
        return {"files": files}

    def _remove(self, context: JobContext, folder: Folder) -> int:
        opened = self._core.volumes.of(folder)
        counted = opened.for_folders([folder])
        removal = Removal(context, self._core.traffic)
        for path in (folder.path, folder.staging, folder.snapshots):
            try:
                removal.tree(counted, path)
            except BackendError:
                # On this machine's disks what is left is no item: a planted link, a dead write.
                if opened.volume.local_root is None:
                    raise
            if opened.volume.local_root is not None:
                # Follows no link; what the kernel does not list counts nowhere.
                shutil.rmtree(opened.volume.local_root / path, ignore_errors=True)
                if (opened.volume.local_root / path).exists():
                    raise JobFailed("something in the folder cannot be removed", retry=True)
        self._remove_parents(folder)
        return removal.files

    def _remove_parents(self, folder: Folder) -> None:
        backend = self._core.volumes.of(folder).volume.backend
        parent = folder.path.rpartition("/")[0]
        while parent.count("/"):
            try:
                backend.rmdir(parent)
            except BackendError:
                return  # others lie there too
            parent = parent.rpartition("/")[0]


def _is_being_cloned(connection: Connection, folder_id: str) -> bool:
    query = sa.select(vfs_folders.c.id).where(
        vfs_folders.c.source == folder_id, vfs_folders.c.status == Status.CLONING.value
    )
    return connection.execute(query.limit(1)).one_or_none() is not None
