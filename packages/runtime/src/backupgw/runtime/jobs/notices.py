"""The events that jobs tell."""

from __future__ import annotations

from ..events.records import Event, JobFinished, JobGivenUp
from .records import Job, State


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
