"""What can go wrong with jobs, for who submits them and for handlers."""

from __future__ import annotations

import enum


class JobError(Exception):
    """The family of what leaves `backupgw.runtime.jobs`, besides `DatabaseError`."""


class UnknownKind(JobError):
    """No handler is registered for the kind."""


class UnknownJob(JobError):
    """There is no job of that id; perhaps its retention has ended."""


class JobConflict(JobError):
    """The caller's id belongs to another job already, of another kind or with other arguments."""


class BadArguments(JobError):
    """The arguments are not what the handler's model asks for, or cannot be written as JSON."""


class BadSchedule(JobError):
    """A cron expression or a time zone that cannot be understood."""


class JobFailed(JobError):
    """Raised by a handler: the work cannot be done, for the reason given.

    Args:
        reason: a line for the person who reads `backupgw job show`.
        retry: whether trying again later may help; by default it does not.
    """

    def __init__(self, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


class Stop(enum.StrEnum):
    """Why a running handler is to stop."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    LOST = "lost"
    """The lease has ended: another gateway may be running the job already."""
    HANDED_OVER = "handed over"
    """The process is stopping; the job goes back to its place in the queue."""


class JobStopped(BaseException):
    """Raised in a handler that is to stop, by `step`, `transact` and `check`; let it pass.

    Not an Exception, so that a handler that survives failures of what it calls does not take this
    for one of them.
    """

    def __init__(self, reason: Stop) -> None:
        super().__init__(f"the job is to stop: {reason.value}")
        self.reason = reason
