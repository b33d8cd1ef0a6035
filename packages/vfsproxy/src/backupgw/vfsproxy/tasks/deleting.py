"""Files and whole trees within a folder, deleted in the background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.jobs import JobContext, JobFailed

from .. import audit
from ..file_changes import FileChanges
from ..files.names import lying
from ..folders.records import Permission
from ..identity import job_of
from ..problems import Problem, problem_of
from .arguments import DeleteFilesTask

if TYPE_CHECKING:
    from ..core import Core


class DeleteFiles:
    """What the task does. Files that are gone already are fine; others stay usable meanwhile."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, context: JobContext, task: DeleteFilesTask) -> Mapping[str, object]:
        """Delete what was named when it was asked for."""
        core = self._core
        done = 0
        try:
            access = core.folders.resolve(
                job_of(task.actor), task.folder, Permission.READ_WRITE_DELETE
            )
            for path in task.paths:
                if not access.files.info(lying(access.files, path)).exists:
                    continue
                before = done

                def report(so_far: int, before: int = before) -> None:
                    context.check()
                    context.progress(before + so_far, unit="files", message="deleting")

                done += FileChanges(core).delete(
                    access, path, recursive=task.recursive, report=report
                )
        except (Problem, BackendError) as error:
            told = problem_of(error, f"deleting in folder {task.folder}")
            retry = bool(getattr(error, "retryable", False))
            raise JobFailed(told.detail, retry=retry) from error
        with core.database.begin() as connection:
            audit.note(
                connection, job_of(task.actor), "files.delete", folder=task.folder, files=done
            )
        return {"files": done}
