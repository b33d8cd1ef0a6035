"""From the settings to running jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..settings_jobs import JobsSettings
from .handlers import JobHandler
from .jobs import Jobs

if TYPE_CHECKING:
    from ..database import Database
    from ..settings import Settings
    from .notices import Publisher


def start(
    settings: Settings,
    database: Database,
    handlers: Iterable[JobHandler],
    *,
    events: Publisher | None = None,
) -> Jobs:
    """Run the jobs of a database in this process, as the section `[jobs]` says.

    Call it in each worker process that is to run jobs, after it was forked; `Jobs.close` when it is
    asked to stop, in a thread of its own where there is an event loop.

    Args:
        database: of `database.state.open_state`; closed by whoever opened it, after the jobs.
        handlers: of the service.
        events: told of jobs that end.
    """
    jobs = Jobs(database, handlers, settings=settings.section("jobs", JobsSettings), events=events)
    jobs.start()
    return jobs
