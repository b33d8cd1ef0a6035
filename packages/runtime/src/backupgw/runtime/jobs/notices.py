"""The events that jobs tell."""

from __future__ import annotations

from typing import Protocol

from ..events.records import Event, JobFinished, JobGivenUp
from .records import Job, State


class Publisher(Protocol):
    """Whom jobs tell of their ends: a gateway's `Events`, or what a service puts before them."""

    def publish(self, event: Event) -> bool:
        """Take an event; never waits."""


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
