"""How jobs are found and taken: each look is one transaction, of one process at a time.

A claim gives the runner an epoch, and every write on behalf of the job asks for it (`holding`).
Whoever takes a job away, because the lease has ended, raises the epoch, so nothing of an earlier
runner arrives any more, however late it comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..database.tables.jobs import job_schedules, jobs
from .clock import Now, now
from .records import Job, State
from .rows import by_number, changed, job, queued, serialize, tell
from .schedules import fire

if TYPE_CHECKING:
    from .handlers import Handlers, JobHandler

LONGEST_BACKOFF = 3600.0
"""Seconds. What waits for longer than this waits because somebody set the clock back."""
OVERDUE = "its deadline passed"


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is this runner's.

    Attributes:
        epoch: what its writes ask for.
        left: seconds until its deadline; None: it has none.
    """

    job: Job
    epoch: int
    left: float | None


@dataclass(frozen=True)
class Rules:
    """What all gateways of a database hold to.

    Attributes:
        runner: who claims; no other process ever has this name.
        lease: seconds.
        running: jobs at a time, all gateways together.
        losses: how often a job's process may die before the job is given up.
        queued_for: seconds after which a job of a kind that nobody runs is given up.
        on_time: seconds by which a scheduled job without `catch_up` may be late.
    """

    runner: str
    lease: float
    running: int
    losses: int
    queued_for: float
    on_time: float


@dataclass
class Round:
    """What came of looking for work.

    Attributes:
        claims: what to run now.
        ended: jobs that nobody runs any more: given up, cancelled.
        lost: kinds of the jobs whose runner had died, one for each.
        next_in: seconds until something is due, or a lease may have ended; None: nothing is.
    """

    claims: list[Claim] = field(default_factory=list)
    ended: list[Job] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    next_in: float | None = None


def look(
    connection: sa.Connection,
    handlers: Handlers,
    rules: Rules,
    free: int,
    known: Collection[int] | None = None,
) -> Round:
    """Submit what the calendar says, give up what is past, and claim at most `free` jobs.

    Args:
        known: the numbers of what runs here, where an earlier look was not answered: what it may
            have claimed goes back.
    """
    serialize(connection)
    moment = now(connection)
    found = Round()
    if known is not None:
        _put_back(connection, rules, known)
    _take_away(connection, rules, moment, found)
    _give_up(connection, handlers, rules, moment, found)
    fire(connection, handlers, moment, rules.on_time)
    _claim(connection, handlers, rules, moment, free, found)
    found.next_in = _next(connection, handlers, moment)
    return found


def waiting(connection: sa.Connection) -> dict[str, int]:
    """Return how many jobs are queued, by kind."""
    counts = sa.select(jobs.c.kind, sa.func.count()).where(queued())
    return _by_kind(connection, counts)


def _by_kind(connection: sa.Connection, counts: sa.Select[str, int]) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(counts.group_by(jobs.c.kind))}


def _put_back(connection: sa.Connection, rules: Rules, known: Collection[int]) -> None:
    connection.execute(
        sa.update(jobs)
        .where(
            jobs.c.runner == rules.runner,
            jobs.c.held,
            jobs.c.state == State.RUNNING.value,
            jobs.c.number.not_in(known),
        )
        .values(
            state=State.QUEUED.value,
            held=False,
            epoch=jobs.c.epoch + 1,
            attempts=jobs.c.attempts - 1,
            version=changed(),
        )
    )


def _expired(moment: Now) -> sa.ColumnElement[bool]:
    return sa.or_(jobs.c.lease_clock != moment.clock, jobs.c.lease_until < moment.lease)


def _take_away(connection: sa.Connection, rules: Rules, moment: Now, found: Round) -> None:
    # A row that its runner has locked is being written with a lease that was good; next time.
    rows = connection.execute(
        sa.select(jobs).where(jobs.c.held, _expired(moment)).with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        values: dict[str, Any] = {"held": False, "epoch": row.epoch + 1, "version": changed()}
        if row.state == State.RUNNING.value:
            found.lost.append(row.kind)
            values["losses"] = row.losses + 1
            if row.cancel_requested:
                values |= {"state": State.CANCELLED.value, "finished": moment.wall}
            elif row.losses + 1 >= rules.losses:
                values |= {
                    "state": State.FAILED.value,
                    "finished": moment.wall,
                    "error": f"the process that ran it ended without a word {row.losses + 1} times",
                }
            else:
                values["state"] = State.QUEUED.value
        connection.execute(sa.update(jobs).where(jobs.c.number == row.number).values(values))
        if values.get("finished") is not None:
            _ended(connection, row.number, found)


def _give_up(
    connection: sa.Connection, handlers: Handlers, rules: Rules, moment: Now, found: Round
) -> None:
    known = [handler.kind for handler in handlers]
    for condition, error in (
        (jobs.c.deadline <= moment.wall, f"{OVERDUE} before it was done"),
        (
            # What this gateway can run it will run, however long that took.
            sa.and_(jobs.c.due < moment.wall - rules.queued_for, jobs.c.kind.not_in(known)),
            f"for {rules.queued_for / 86_400:g} days no gateway ran jobs of this kind",
        ),
    ):
        rows = connection.execute(
            sa.update(jobs)
            .where(queued(), condition)
            .values(state=State.FAILED.value, finished=moment.wall, error=error, version=changed())
            .returning(jobs.c.number)
        ).all()
        for row in rows:
            _ended(connection, row.number, found)


def _ended(connection: sa.Connection, number: int, found: Round) -> None:
    tell(connection, "finished", number)
    found.ended.append(by_number(connection, number))


def _in_line(table: Any, moment: Now) -> sa.ColumnElement[bool]:
    # Who was not asked to wait is due, whatever became of the clock since.
    return sa.and_(queued(table), sa.or_(~table.c.delayed, table.c.due <= moment.wall))


def _claim(
    connection: sa.Connection,
    handlers: Handlers,
    rules: Rules,
    moment: Now,
    free: int,
    found: Round,
) -> None:
    running = _by_kind(connection, sa.select(jobs.c.kind, sa.func.count()).where(jobs.c.held))
    free = min(free, rules.running - sum(running.values()))
    room = {handler.kind: _room(handler, running, free) for handler in handlers}
    while free > 0 and (kinds := [kind for kind, places in room.items() if places > 0]):
        candidates = connection.execute(_heads(kinds, moment, free)).all()
        skipped = False
        for row in candidates:
            if room[row.kind] <= 0:
                skipped = True
                continue
            claim = _take(connection, row.number, rules, moment)
            if claim is None:
                continue
            room[row.kind] -= 1
            free -= 1
            found.claims.append(claim)
        if not skipped:
            break


def _room(handler: JobHandler, running: Mapping[str, int], free: int) -> int:
    return free if handler.limit is None else handler.limit - running.get(handler.kind, 0)


def _heads(kinds: Collection[str], moment: Now, limit: int) -> sa.Select[int, str]:
    """Jobs that can start: the first in the line of their key, where none of the key runs."""
    earlier = jobs.alias("earlier")
    running = jobs.alias("running")
    return (
        sa.select(jobs.c.number, jobs.c.kind)
        .where(
            _in_line(jobs, moment),
            ~jobs.c.held,
            sa.or_(jobs.c.wake <= moment.wall, jobs.c.wake > moment.wall + LONGEST_BACKOFF * 1.2),
            jobs.c.kind.in_(kinds),
            ~sa.exists().where(running.c.held, running.c.key == jobs.c.key),
            ~sa.exists().where(
                _in_line(earlier, moment),
                earlier.c.key == jobs.c.key,
                sa.tuple_(earlier.c.due, earlier.c.number) < sa.tuple_(jobs.c.due, jobs.c.number),
            ),
        )
        .order_by(jobs.c.due, jobs.c.number)
        .limit(limit)
    )


def _take(connection: sa.Connection, number: int, rules: Rules, moment: Now) -> Claim | None:
    row = connection.execute(
        sa.update(jobs)
        # It may have been cancelled since it was found.
        .where(jobs.c.number == number, jobs.c.state == State.QUEUED.value, ~jobs.c.held)
        .values(
            state=State.RUNNING.value,
            held=True,
            epoch=jobs.c.epoch + 1,
            attempts=jobs.c.attempts + 1,
            runner=rules.runner,
            started=moment.wall,
            progress=None,
            lease_until=moment.lease + rules.lease,
            lease_clock=moment.clock,
            version=changed(),
        )
        .returning(jobs)
    ).one_or_none()
    if row is None:
        return None
    tell(connection, "started", number)
    left = None if row.deadline is None else row.deadline - moment.wall
    return Claim(job(row), row.epoch, left)


def _next(connection: sa.Connection, handlers: Handlers, moment: Now) -> float | None:
    wall, lease = moment.wall, moment.lease
    row = connection.execute(
        sa.select(
            _least(jobs.c.due, queued(), jobs.c.delayed, jobs.c.due > wall),
            _least(jobs.c.wake, queued(), jobs.c.wake > sa.literal_column("0"), jobs.c.wake > wall),
            _least(jobs.c.deadline, queued(), jobs.c.deadline.is_not(None)),
            _least(
                job_schedules.c.next,
                job_schedules.c.next > wall,
                job_schedules.c.kind.in_([handler.kind for handler in handlers]),
            ),
            _least(jobs.c.lease_until, jobs.c.held, jobs.c.lease_until >= lease),
        )
    ).one()
    times = [time - wall for time in row[:4] if time is not None]
    if row[4] is not None:
        times.append(row[4] - lease)
    # What is past by now and still there could not be done; whoever asks looks again some time.
    return min((time for time in times if time >= 0), default=None)


def _least(column: sa.Column[Any], *where: sa.ColumnElement[bool]) -> sa.ScalarSelect[Any]:
    return sa.select(sa.func.min(column)).where(*where).scalar_subquery()
