"""Clones: a new folder, filled from another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backupgw.kvstore.copying import Side
from backupgw.runtime.jobs import Job, JobContext, JobFailed

from .. import audit
from ..folders import catalogue
from ..folders.lifecycle import Lifecycle, Wanted
from ..folders.records import Folder, Permission, Status
from ..identity import Identity, job_of
from .arguments import CloneTask
from .board import key_of
from .working import copy_tree, ended, working

if TYPE_CHECKING:
    from ..core import Core


def submit_clone(core: Core, who: Identity, source_id: str, wanted: Wanted) -> tuple[Folder, Job]:
    """Make a folder and have it filled; it can be used when the task is done.

    Raises:
        Problem: the source cannot be read, or the new folder cannot be made.
    """
    source = core.folders.resolve(who, source_id, Permission.READ_ONLY).folder
    clone = Lifecycle(core).create(who, wanted, status=Status.CLONING, source=source.id)
    job = core.tasks.submit(
        "vfs.clone",
        CloneTask(folder=clone.id, source=source.id, actor=who.user),
        key=key_of(clone.id),
    )
    return clone, job


class Clone:
    """What the task does. A second attempt leaves alone what the first has copied.

    Files are copied as they are when it is their turn, each whole; links are not followed. When it
    fails, the clone stays, with the reason, and can be deleted; nothing else is touched.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: CloneTask) -> Mapping[str, object]:
        """Copy all files."""
        core = self._core
        with working(
            core,
            context,
            task.folder,
            expected=(Status.CLONING,),
            during=Status.CLONING,
            failed=Status.ERROR,
        ) as clone:
            with core.database.read() as connection:
                source = catalogue.find(connection, task.source)
            if source is None:
                raise JobFailed("the folder that was to be cloned is gone")
            opened = core.volumes.of(clone)
            layer = opened.for_folders([source, clone])
            # In one volume it is one place, so that it can copy by itself.
            if source.volume == clone.volume:
                origin = layer
            else:
                origin = core.volumes.of(source).for_folders([source])
            totals = copy_tree(Side(origin, source.path), Side(layer, clone.path), context)
            ended(core, clone.id, status=Status.READY, source=None, job=None)
            with core.database.begin() as connection:
                audit.note(
                    connection,
                    job_of(task.actor),
                    "folder.clone",
                    folder=clone.id,
                    source=source.id,
                )
        return {
            "files": totals.copied + totals.present,
            "bytes": totals.copied_bytes + totals.present_bytes,
        }
