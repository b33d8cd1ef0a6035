"""Uploads that tasks end: those whose time is over, and those to a folder that is purged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backupgw.runtime.jobs import JobContext

from ..folders import catalogue
from ..folders.records import Folder, Permission
from ..identity import job_of
from ..tus.bodies import Space
from ..tus.database import DatabaseUploads
from ..tus.reaping import end_below, reap

if TYPE_CHECKING:
    from ..core import Core


def reap_uploads(core: Core, context: JobContext, actor: str) -> int:
    """End the uploads whose time is over; return how many."""

    def space_of(folder_id: str) -> Space | None:
        with core.database.read() as connection:
            folder = catalogue.find(connection, folder_id)
        return None if folder is None else _space(core, folder, actor)

    return reap(DatabaseUploads(core.database), space_of, lambda _done: context.check())


def end_uploads(core: Core, folder: Folder, actor: str) -> int:
    """End all uploads to a folder, whose room would be kept for them otherwise; return how many."""
    store = DatabaseUploads(core.database)
    return end_below(store, _space(core, folder, actor), folder.id, "")


def _space(core: Core, folder: Folder, actor: str) -> Space:
    access = core.folders.open(job_of(actor), folder, Permission.OWNER)
    return Space(access.files, access.staging)
