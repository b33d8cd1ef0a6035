"""Which kinds of task there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backupgw.runtime.jobs import Backoff, JobHandler

from . import snapshots
from .arguments import (
    CleanupTask,
    CloneTask,
    DeleteFilesTask,
    FolderTask,
    OrphansTask,
    SnapshotTask,
    TransferTask,
    VolumeTask,
)
from .cleanup import Cleanup
from .cloning import Clone
from .deleting import DeleteFiles
from .ending import Purge
from .scanning import Orphans, Scan
from .transfer import Transfer

if TYPE_CHECKING:
    from ..core import Core

_PATIENT = Backoff(first=10.0, longest=600.0)


def handlers_of(core: Core) -> list[JobHandler]:
    """Return what runs the tasks of virtual folders."""
    return [
        JobHandler("vfs.purge", Purge(core), FolderTask, attempts=10, backoff=_PATIENT, limit=2),
        JobHandler("vfs.clone", Clone(core), CloneTask, attempts=5, backoff=_PATIENT, limit=2),
        JobHandler("vfs.transfer", Transfer(core), TransferTask, attempts=5, backoff=_PATIENT),
        JobHandler(
            "vfs.snapshot_create", snapshots.Create(core), SnapshotTask, attempts=3, limit=2
        ),
        JobHandler(
            "vfs.snapshot_restore", snapshots.Restore(core), SnapshotTask, attempts=5, limit=2
        ),
        JobHandler(
            "vfs.snapshot_delete",
            snapshots.Delete(core),
            SnapshotTask,
            attempts=10,
            backoff=_PATIENT,
            limit=2,
        ),
        JobHandler(
            "vfs.delete_files", DeleteFiles(core), DeleteFilesTask, attempts=5, backoff=_PATIENT
        ),
        JobHandler("vfs.scan", Scan(core), VolumeTask, attempts=5, backoff=_PATIENT, limit=1),
        JobHandler(
            "vfs.orphans", Orphans(core), OrphansTask, attempts=3, backoff=_PATIENT, limit=1
        ),
        JobHandler("vfs.cleanup", Cleanup(core), CleanupTask, attempts=1, limit=1),
    ]
