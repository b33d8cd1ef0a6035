"""Tasks: submitted, told of, followed and called off, by those who may."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from backupgw.runtime.jobs import Job, JobHandler, Jobs, Schedule, State
from backupgw.runtime.settings_jobs import JobsSettings

from ..folders import catalogue
from ..folders.access import permission_of
from ..folders.records import Permission
from ..identity import Identity
from ..problems import Problem, not_found

if TYPE_CHECKING:
    from backupgw.runtime.events import Events

    from ..core import Core

PREFIX = "vfs."
"""What the kinds of our jobs begin with."""


class Tasks:
    """The jobs of virtual folders. Without `start` they are submitted and told of, not run.

    Attributes:
        jobs: where they are.
    """

    def __init__(self, core: Core, handlers: Sequence[JobHandler], events: Events | None) -> None:
        self._core = core
        section = core.settings.section("jobs", JobsSettings)
        self.jobs = Jobs(core.database, handlers, settings=section, events=events)

    def start(self) -> None:
        """Run them in this process, and by the calendar."""
        self.jobs.start()
        self.jobs.set_schedules("vfs", self._schedules())

    def close(self) -> None:
        """Let running ones come to the end of a step, and stop."""
        self.jobs.close()

    def _schedules(self) -> list[Schedule]:
        vfs = self._core.vfs
        when = vfs.schedule
        found = []
        if when.cleanup:
            found.append(
                Schedule(name="vfs.cleanup", kind="vfs.cleanup", cron=when.cleanup, zone=when.zone)
            )
        for what, cron in (("scan", when.scan), ("orphans", when.orphans)):
            found += [
                Schedule(
                    name=f"vfs.{what} {volume}",
                    kind=f"vfs.{what}",
                    arguments={"volume": volume, "actor": "gateway"},
                    key=f"vfs:volume:{volume}",
                    cron=cron,
                    zone=when.zone,
                )
                for volume in self._core.volumes
                if cron
            ]
        return found

    def submit(
        self,
        kind: str,
        arguments: BaseModel,
        *,
        key: str | None,
        unique: bool = False,
        id: str | None = None,  # noqa: A002 - it is what a job's is called
    ) -> Job:
        """Put a task into the queue.

        Args:
            key: tasks of one are done one after the other; a folder's is `key_of`.
            unique: one of the same kind and key that waits or runs is as good.
        """
        return self.jobs.submit(kind, arguments, key=key, unique=unique, id=id or uuid.uuid4().hex)

    def find(self, who: Identity, task: str) -> Job:
        """Return a task. Raises Problem 404 where there is none that the client may see."""
        job = self.jobs.find(task)
        if not job.kind.startswith(PREFIX) or not self._sees(who, job):
            raise not_found("task")
        return job

    def listed(
        self, who: Identity, *, folder: str | None, states: Sequence[State], limit: int
    ) -> list[Job]:
        """Return the latest tasks: of a folder, or, to administrators, of all."""
        if folder is None:
            with self._core.database.read() as connection:
                if not self._core.folders.standing(connection, who).admin:
                    raise Problem(
                        403, "permission-denied", "say which folder; administrators see all"
                    )
            found = self.jobs.list(states=states, limit=limit)
            return [job for job in found if job.kind.startswith(PREFIX)]
        found = self.jobs.list(states=states, key=key_of(folder), limit=limit)
        return [job for job in found if self._sees(who, job)]

    def cancel(self, who: Identity, task: str) -> Job:
        """Call a task off; one that has ended stays as it is."""
        self.find(who, task)
        return self.jobs.cancel(task)

    def follow(self, task: str) -> AsyncIterator[Job]:
        """Yield a task now and whenever it has changed; for whom `find` has returned it."""
        return self.jobs.follow(task)

    def _sees(self, who: Identity, job: Job) -> bool:
        if who.manager or job.arguments.get("actor") == who.user:
            return True
        with self._core.database.read() as connection:
            standing = self._core.folders.standing(connection, who)
            if standing.admin:
                return True
            folder = catalogue.find(connection, str(job.arguments.get("folder", "")))
            if folder is None:
                return False
            return permission_of(connection, standing, folder) is Permission.OWNER


def key_of(folder_id: str) -> str:
    """Return the key of a folder's tasks, which are done one after the other."""
    return f"vfs:{folder_id}"
