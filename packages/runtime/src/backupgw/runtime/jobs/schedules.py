"""Jobs that start by the calendar.

A schedule is a row that says when it comes next. Whichever gateway claims jobs at that time submits
the job and moves the row on, in one transaction, so that it is submitted once however many gateways
there are. Times that passed while no gateway ran count as one. While the schedule's last job has
not finished, no other is submitted: what would be due then is left out.

Cron's five fields are read as Debian's cron reads them, clock changes included: what falls into
the hour that a change skips runs once right after it, what falls into the hour that comes twice
runs once, and what runs every hour or more often keeps its pace.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy as sa
from cronsim import CronSim, CronSimError

from ..database.tables.jobs import job_schedules, jobs
from .clock import Now
from .errors import BadSchedule, UnknownKind
from .records import Job, moment
from .submission import Submission, insert

if TYPE_CHECKING:
    from .handlers import Handlers

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a job is to be submitted.

    Attributes:
        name: unique, such as "wings.prune".
        kind, arguments, key: the job's; without a key, the schedule's jobs are one at a time.
        cron: five fields: minute, hour, day of the month, month, day of the week.
        zone: the time zone they are in, such as "Europe/Berlin".
        catch_up: whether times that passed while no gateway ran are made up for, by one job.
    """

    name: str
    kind: str
    cron: str
    arguments: Any = field(default_factory=dict)
    key: str | None = None
    zone: str = "UTC"
    catch_up: bool = True


def following(cron: str, zone: str, after: float) -> float | None:
    """Return the first time of a cron expression after a moment; None where there is none.

    Args:
        after: seconds since the epoch, as is what is returned.

    Raises:
        BadSchedule: the expression or the time zone is wrong.
    """
    if len(cron.split()) != 5:
        raise BadSchedule(
            f"{cron!r} is no cron expression: write five fields, minute, hour, day of the month, "
            "month and day of the week, such as '30 3 * * *'"
        )
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSchedule(
            f"there is no time zone {zone!r} on this machine; write one such as Europe/Berlin, or "
            "install the package tzdata"
        ) from error
    try:
        times = CronSim(cron, datetime.fromtimestamp(after, place))
    except CronSimError as error:
        raise BadSchedule(f"{cron!r} is no cron expression: {str(error).lower()}") from error
    for time in times:
        # A time that comes twice is told as the first of the two, which may have passed already.
        if (seconds := time.timestamp()) > after:
            return seconds
    return None


def check(schedule: Schedule) -> None:
    """Raise BadSchedule where a schedule's times cannot be understood, or never come."""
    if following(schedule.cron, schedule.zone, 0.0) is None:
        raise BadSchedule(f"the schedule {schedule.name}: {schedule.cron!r} never comes")


def declare(
    connection: sa.Connection,
    owner: str,
    schedules: list[tuple[Schedule, str]],
    now: float,
) -> None:
    """Make these, with their arguments as JSON, the schedules of an owner, and no others.

    One that is there unchanged keeps its next time.
    """
    rows = connection.execute(sa.select(job_schedules).where(job_schedules.c.owner == owner))
    known = {row.name: row for row in rows}
    names = {schedule.name for schedule, _ in schedules}
    gone = known.keys() - names
    if gone:
        connection.execute(sa.delete(job_schedules).where(job_schedules.c.name.in_(gone)))
    for schedule, arguments in schedules:
        values = {
            "owner": owner,
            "kind": schedule.kind,
            "key": schedule.key or f"schedule:{schedule.name}",
            "arguments": arguments,
            "cron": schedule.cron,
            "zone": schedule.zone,
            "catch_up": schedule.catch_up,
        }
        old = known.get(schedule.name)
        if old is not None and all(old._mapping[name] == value for name, value in values.items()):
            continue
        timing_kept = old is not None and (old.cron, old.zone) == (schedule.cron, schedule.zone)
        if not timing_kept:
            values["next"] = following(schedule.cron, schedule.zone, now)
        where = job_schedules.c.name == schedule.name
        if not connection.execute(sa.update(job_schedules).where(where).values(values)).rowcount:
            connection.execute(sa.insert(job_schedules).values(name=schedule.name, **values))


def fire(connection: sa.Connection, handlers: Handlers, now: Now, on_time: float) -> list[Job]:
    """Submit what is due and move the schedules on; in the transaction that claims.

    Args:
        on_time: seconds by which a job without `catch_up` may be late.
    """
    due = connection.execute(sa.select(job_schedules).where(job_schedules.c.next <= now.wall)).all()
    submitted = []
    for row in due:
        try:
            handler = handlers.get(row.kind)
            upcoming = following(row.cron, row.zone, now.wall)
        except UnknownKind:
            continue  # another gateway's, which runs that service
        except BadSchedule:
            # It was right when it was declared: this machine lacks the zone. Others may have it.
            logger.exception("the schedule %s cannot go on here", row.name)
            continue
        job = None
        missed = now.wall - row.next > on_time and not row.catch_up
        if not missed and not _unfinished(connection, row.last_job):
            job = insert(
                connection,
                Submission(
                    id=f"{row.name}@{moment(row.next)}",
                    kind=row.kind,
                    key=row.key,
                    arguments=row.arguments,
                    schedule=row.name,
                    deadline=handler.deadline,
                ),
                now.wall,
            )
            submitted.append(job)
        else:
            reason = "nobody ran at that time" if missed else f"{row.last_job} has not finished"
            logger.warning("the schedule %s left out %s: %s", row.name, moment(row.next), reason)
        values = {"next": upcoming} | ({"last": row.next, "last_job": job.id} if job else {})
        connection.execute(
            sa.update(job_schedules).where(job_schedules.c.name == row.name).values(values)
        )
    return submitted


def _unfinished(connection: sa.Connection, job_id: str | None) -> bool:
    if job_id is None:
        return False
    state = connection.execute(sa.select(jobs.c.finished).where(jobs.c.id == job_id)).one_or_none()
    return state is not None and state.finished is None
