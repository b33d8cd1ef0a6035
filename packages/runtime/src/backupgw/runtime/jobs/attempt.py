"""One attempt at a job: the handler is called, and what came of it is written down."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from ..database import Database, DatabaseError, DatabaseUnavailable
from ..secrets import redact_url
from . import holding
from .claims import OVERDUE
from .clock import elapsed
from .context import JobContext
from .errors import BadArguments, JobFailed, JobStopped, Stop
from .handlers import JobHandler
from .records import Job, State, as_json

logger = logging.getLogger(__name__)

ERROR_LENGTH = 2000
"""Characters of a job's error that are kept."""
_AGAIN_AFTER = 1.0
"""Seconds between two tries to write the end of an attempt while the database is away."""


class Outcome(enum.StrEnum):
    """How an attempt ended, in metrics."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    HANDED_OVER = "handed_over"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class End:
    """What an attempt came to.

    Attributes:
        result: JSON.
        retry_in: seconds until the next attempt; None: this was the last.
    """

    outcome: Outcome
    state: State | None = None
    result: str | None = None
    error: str | None = None
    retry_in: float | None = None


def call(handler: JobHandler, context: JobContext) -> End:
    """Run a handler to its end, whatever that is."""
    try:
        arguments = handler.read(context.job.arguments)
        value = handler.run(context, arguments)
    except JobStopped as stopped:
        return _stopped(stopped.reason, None)
    except BadArguments as error:
        return End(Outcome.FAILED, State.FAILED, error=_line(str(error)))
    # Whatever a handler raises is a failure of its job and of nothing else, SystemExit included.
    except BaseException as error:  # noqa: BLE001
        return _failed(handler, context, error)
    try:
        result = as_json(value, "what the handler returned")
    except ValueError as error:
        return End(Outcome.FAILED, State.FAILED, error=_line(str(error)))
    return End(Outcome.DONE, State.SUCCEEDED, result=result)


def _stopped(reason: Stop, error: str | None) -> End:
    match reason:
        case Stop.CANCELLED:
            return End(Outcome.STOPPED, State.CANCELLED, error=error)
        case Stop.DEADLINE:
            text = f"{OVERDUE} while it ran" + (f": {error}" if error else "")
            return End(Outcome.STOPPED, State.FAILED, error=text)
        case Stop.HANDED_OVER:
            return End(Outcome.HANDED_OVER, State.QUEUED)
        case Stop.LOST:
            return End(Outcome.LOST)


def _failed(handler: JobHandler, context: JobContext, error: BaseException) -> End:
    text = _line(str(error) if isinstance(error, JobFailed) else f"{type(error).__name__}: {error}")
    if context.cancelled and context.stop is not None:
        return _stopped(context.stop, text)
    if not isinstance(error, JobFailed):
        logger.warning("the job %s (%s) failed", context.job.id, context.job.kind, exc_info=error)
    failures = context.job.attempts - context.job.losses
    final = isinstance(error, JobFailed) and not error.retry
    if final or failures >= handler.attempts:
        return End(Outcome.FAILED, State.FAILED, error=text)
    wait = handler.backoff.wait(failures)
    # A place that says when to come back is believed.
    asked = getattr(error, "retry_after", None)
    if isinstance(asked, int | float):
        wait = max(wait, float(asked))
    return End(Outcome.FAILED, State.QUEUED, error=text, retry_in=wait)


def _line(text: str) -> str:
    line = redact_url(" ".join(text.split()))
    return line if len(line) <= ERROR_LENGTH else f"{line[: ERROR_LENGTH - 1]}…"


def settle(database: Database, context: JobContext, end: End) -> Job | None:
    """Write down how an attempt ended, for as long as its lease lasts.

    Returns:
        the job as it is then; None: it is somebody else's, or will be.
    """
    claim = context.claim
    write: Callable[[sa.Connection], Job | None]
    if end.state is None:
        return None
    state = end.state
    if end.outcome is Outcome.HANDED_OVER:

        def write(connection: sa.Connection) -> Job | None:
            return holding.hand_over(connection, claim, ended=True)

    elif end.retry_in is not None:
        wait, error = end.retry_in, end.error or ""

        def write(connection: sa.Connection) -> Job | None:
            return holding.again(connection, claim, wait, error)

    else:

        def write(connection: sa.Connection) -> Job | None:
            return holding.finish(
                connection,
                claim,
                state,
                result=end.result,
                error=end.error,
                progress=context.last_progress,
            )

    pause = threading.Event()
    while elapsed() < context.lease_end:
        try:
            return database.run(write, idempotent=True)
        except DatabaseUnavailable:
            pause.wait(max(0.0, min(_AGAIN_AFTER, context.lease_end - elapsed())))
        except DatabaseError:
            logger.exception("the end of the job %s cannot be written", claim.job.id)
            return None
    return None
