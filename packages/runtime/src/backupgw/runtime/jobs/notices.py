"""The events that jobs tell."""

from __future__ import annotations

from dataclasses import dataclass

from ..events.records import Event, Severity
from .records import Job, State


@dataclass(frozen=True, kw_only=True)
class JobFinished(Event, type="job.finished"):
    """A job has succeeded, or was cancelled.

    Attributes:
        job: its id.
        kind, key: what it was, and for whom.
        state: "succeeded" or "cancelled".
        attempts: how often it was started.
        seconds: from the beginning of its last attempt; None: it was never started.
    """

    job: str
    kind: str
    state: str
    attempts: int
    key: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class JobGivenUp(Event, type="job.failed", severity=Severity.ERROR):
    """A job has failed for good: `reason` says why in a line."""

    job: str
    kind: str
    attempts: int
    reason: str
    key: str | None = None
    seconds: float | None = None


def notice(job: Job) -> Event:
    """Return the event that tells of a job's end."""
    seconds = None
    if job.started is not None and job.finished is not None:
        seconds = round(job.finished - job.started, 3)
    if job.state is State.FAILED:
        return JobGivenUp(
            job=job.id,
            kind=job.kind,
            key=job.key,
            attempts=job.attempts,
            reason=job.error or "",
            seconds=seconds,
        )
    return JobFinished(
        job=job.id,
        kind=job.kind,
        key=job.key,
        state=job.state.value,
        attempts=job.attempts,
        seconds=seconds,
    )
