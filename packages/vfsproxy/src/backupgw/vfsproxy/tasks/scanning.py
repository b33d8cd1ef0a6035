"""Volumes looked through: counted anew, and for folders that nobody knows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.kvstore.ledger import Report
from backupgw.kvstore.walking import walk
from backupgw.runtime.jobs import Job, JobContext, JobFailed

from .. import audit
from ..accounts import PREFIX, place_of
from ..event_records import DriftCorrected, OrphanFound
from ..folders import catalogue
from ..folders.opened import OpenVolume
from ..identity import Identity, job_of
from ..problems import Problem, not_found, problem_of
from .arguments import OrphansTask, VolumeTask
from .pace import Pace
from .working import Removal

if TYPE_CHECKING:
    from ..core import Core

log = logging.getLogger(__name__)

TOLD = 1000
"""Orphans and corrections that a task's result names."""
REST = 15.0
"""Rest after a slice of counting, while clients ask for things."""


def submit_scan(core: Core, who: Identity, volume: str) -> Job:
    """Have a volume counted. Raises Problem 403, 404."""
    _check(core, who, volume)
    return core.tasks.submit(
        "vfs.scan",
        VolumeTask(volume=volume, actor=who.user),
        key=f"vfs:volume:{volume}",
        unique=True,
    )


def submit_orphans(core: Core, who: Identity, volume: str, *, remove: bool) -> Job:
    """Have orphans looked for, and removed where that is wanted. Raises Problem 403, 404."""
    _check(core, who, volume)
    return core.tasks.submit(
        "vfs.orphans",
        OrphansTask(volume=volume, actor=who.user, remove=remove),
        key=f"vfs:volume:{volume}",
    )


def _check(core: Core, who: Identity, volume: str) -> None:
    with core.database.read() as connection:
        if not core.folders.standing(connection, who).admin:
            raise Problem(403, "permission-denied", "this is for administrators")
    if volume not in core.volumes:
        raise not_found("volume")


def count_anew(core: Core, opened: OpenVolume, context: JobContext) -> Report:
    """Count a volume while it is in use, and correct the accounts.

    Raises:
        JobStopped: the task is to stop; the accounts are as they were.
    """
    opened.counted.recover()
    belonging = opened.belonging()
    ledger, place = core.accounts.ledger, place_of(opened.volume.name)
    pace = Pace(context, core.traffic, rest=REST)
    seen = 0

    def listing(folder: str) -> Iterator[ItemInfo]:
        nonlocal seen
        for info in opened.counted.list_all(folder):
            seen += 1
            if seen % 50 == 0:
                pace.step()
            if seen % 1000 == 0:
                context.check()
                context.progress(seen, unit="files", message="counting")
            yield info

    report = ledger.reconcile(place, listing, belonging.scopes_of, lookup=opened.counted.held_by)
    for correction in report.corrections:
        log.warning("%s was counted wrongly", correction.scope)
        core.publish(
            DriftCorrected(
                scope=correction.scope,
                recorded_bytes=correction.recorded.bytes,
                recorded_files=correction.recorded.objects,
                found_bytes=correction.found.bytes,
                found_files=correction.found.objects,
            )
        )
    return report


class Scan:
    """Counts a volume."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: VolumeTask) -> Mapping[str, object]:
        """Return what was counted, and what was corrected."""
        opened = _opened(self._core, task.volume)
        try:
            report = count_anew(self._core, opened, context)
        except BackendError as error:
            told = problem_of(error, f"scan of {task.volume}")
            raise JobFailed(told.detail, retry=error.retryable) from error
        if self._core.source is not None:
            self._core.source.tell_usage(task.volume)
        return {
            "bytes": report.counted.bytes,
            "files": report.counted.objects,
            "corrections": [
                {
                    "scope": each.scope.removeprefix(PREFIX),
                    "recorded_bytes": each.recorded.bytes,
                    "recorded_files": each.recorded.objects,
                    "found_bytes": each.found.bytes,
                    "found_files": each.found.objects,
                }
                for each in report.corrections[:TOLD]
            ],
        }


class Orphans:
    """Looks for folders in a volume that nobody knows."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: OrphansTask) -> Mapping[str, object]:
        """Return the paths found, with what they hold."""
        core = self._core
        opened = _opened(core, task.volume)
        backend = opened.volume.backend
        found: list[dict[str, object]] = []
        count = 0
        try:
            for path in self._unknown(backend, task.volume, context):
                files, size = _held(backend, path)
                count += 1
                if len(found) < TOLD:
                    found.append({"path": path, "files": files, "bytes": size})
                core.publish(OrphanFound(volume=task.volume, path=path, files=files, bytes=size))
                if task.remove:
                    Removal(context, core.traffic).tree(backend, path)
                    with core.database.begin() as connection:
                        audit.note(
                            connection,
                            job_of(task.actor),
                            "orphan.remove",
                            volume=task.volume,
                            path=path,
                            files=files,
                            bytes=size,
                        )
        except BackendError as error:
            told = problem_of(error, f"orphans of {task.volume}")
            raise JobFailed(told.detail, retry=error.retryable) from error
        return {"orphans": found, "count": count, "removed": task.remove}

    def _unknown(self, backend: Backend, volume: str, context: JobContext) -> Iterator[str]:
        for path in _candidates(backend):
            context.check()
            with self._core.database.read() as connection:
                known = (
                    catalogue.find(connection, path.rpartition("/")[2])
                    if path.startswith(("staging/", "snapshots/"))
                    else catalogue.find_at(connection, volume, path)
                )
            if known is None:
                yield path


def _candidates(backend: Backend) -> Iterator[str]:
    """Yield whatever lies where folders, their staging or snapshots do."""
    for top in list(_folders(backend, "")):
        if top in ("staging", "snapshots"):
            yield from (f"{top}/{name}" for name in list(_folders(backend, top)))
        elif top == "folders" or ":" in top:
            for first in list(_folders(backend, top)):
                for second in list(_folders(backend, f"{top}/{first}")):
                    between = f"{top}/{first}/{second}"
                    yield from (f"{between}/{name}" for name in list(_folders(backend, between)))


def _folders(backend: Backend, path: str) -> Iterator[str]:
    try:
        for info in backend.list(path):
            if info.directory:
                yield info.name
    except ObjectNotFound:
        return


def _held(backend: Backend, path: str) -> tuple[int, int]:
    files = size = 0
    for found in walk(backend, path):
        if not found.info.directory:
            files += 1
            size += found.info.size
    return files, size


def _opened(core: Core, volume: str) -> OpenVolume:
    opened = core.volumes.get(volume)
    if opened is None:
        raise JobFailed(f"this gateway does not serve the volume {volume}", retry=True)
    return opened
