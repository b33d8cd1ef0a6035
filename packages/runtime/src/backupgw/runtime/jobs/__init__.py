"""Durable jobs: work that goes on behind a request, and survives whatever happens to a gateway.

    handler = JobHandler("backup.copy", copy, CopyArguments, attempts=5)
    jobs = start(settings, database, [handler], events=events)      # once in each worker process
    job = jobs.submit("backup.copy", {"server": "web1"}, key="web1", id=request_id)
    job = await jobs.wait(job.id)
    ...
    jobs.close()

A job is run until it has succeeded, has failed as often as its kind allows, or was cancelled; one
job of a key at a time, in the order of submission. Handlers are called at least once, and what must
happen once goes through `JobContext.step` and `JobContext.transact`. docs/jobs.md says what is
promised, and what is not.
"""

from .context import JobContext
from .errors import (
    BadArguments,
    BadSchedule,
    JobConflict,
    JobError,
    JobFailed,
    JobStopped,
    Stop,
    UnknownJob,
    UnknownKind,
)
from .handlers import Backoff, Handlers, JobHandler, NoArguments
from .jobs import Jobs
from .records import Job, Progress, State
from .schedules import Schedule
from .start import start

__all__ = [
    "Backoff",
    "BadArguments",
    "BadSchedule",
    "Handlers",
    "Job",
    "JobConflict",
    "JobContext",
    "JobError",
    "JobFailed",
    "JobHandler",
    "JobStopped",
    "Jobs",
    "NoArguments",
    "Progress",
    "Schedule",
    "State",
    "Stop",
    "UnknownJob",
    "UnknownKind",
    "start",
]
