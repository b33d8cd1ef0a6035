"""Documents about tasks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from backupgw.runtime.jobs import Job

from .models import Model, moment, moment_or_none


class ProgressDocument(Model):
    """How far a task is. `total` is null where nobody knows it."""

    done: float
    total: float | None
    unit: str
    message: str


class TaskDocument(Model):
    """A task: work that goes on by itself, and survives a restart."""

    id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    folder: str | None
    volume: str | None
    actor: str = Field(description="who asked for it")
    created: datetime
    started: datetime | None
    finished: datetime | None
    attempts: int
    progress: ProgressDocument | None
    result: dict[str, Any] | None
    error: str | None


class TaskList(Model):
    """Tasks, the latest first."""

    items: list[TaskDocument]


class TaskGiven(Model):
    """The task that has been begun."""

    task: str


def task_document(job: Job) -> TaskDocument:
    """Return what is told of a task."""
    progress = job.progress
    return TaskDocument(
        id=job.id,
        kind=job.kind.removeprefix("vfs."),
        state=job.state.value,
        folder=job.arguments.get("folder"),
        volume=job.arguments.get("volume"),
        actor=str(job.arguments.get("actor", "")),
        created=moment(job.created),
        started=moment_or_none(job.started),
        finished=moment_or_none(job.finished),
        attempts=job.attempts,
        progress=None
        if progress is None
        else ProgressDocument(
            done=progress.done,
            total=progress.total,
            unit=progress.unit,
            message=progress.message,
        ),
        result=job.result if isinstance(job.result, dict) else None,
        error=job.error,
    )
