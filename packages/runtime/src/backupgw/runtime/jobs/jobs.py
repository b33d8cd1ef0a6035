"""The jobs of a database: submitted, waited for, and run by a process that has handlers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import queue
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel

from ..database import Database
from ..database.tables.jobs import jobs as table
from ..events.records import this_gateway
from ..settings_jobs import JobsSettings
from . import rows, schedules
from .claims import Rules
from .clock import now
from .errors import UnknownJob
from .following import Follower, Followers
from .handlers import Handlers, JobHandler
from .notices import Publisher, notice
from .records import Job, State
from .retention import BATCH, remove_old
from .runner import Limits, Runner
from .schedules import Schedule
from .submission import Submission, cancel, insert
from .wake import Bell, PostgresListener

QUEUED_FOR = 7 * 86_400.0
"""Seconds after which a job of a kind that no gateway runs ends as failed."""
ON_TIME = 300.0
"""Seconds by which a scheduled job that is not to be caught up may be late."""
DEADLINE_GRACE = 30.0
"""Seconds that a handler has to stop after its deadline."""
SUBMIT_FOR = 5.0
"""Seconds that `submit` tries: somebody waits for its answer."""
LONGEST_ID = 200
"""Characters of a caller's id, and of a key."""


class Jobs:
    """Safe to use from any thread. Without `start` it runs nothing, but submits and shows jobs."""

    def __init__(
        self,
        database: Database,
        handlers: Iterable[JobHandler] = (),
        *,
        settings: JobsSettings | None = None,
        events: Publisher | None = None,
        gateway: str = "",
    ) -> None:
        """Describe the jobs of a database.

        Args:
            handlers: of the kinds that this process submits and runs.
            events: told of the jobs that end here.
            gateway: what `job show` calls this process; default the machine's name.
        """
        self._settings = settings or JobsSettings()
        self._database = database
        limits = self._settings.limits
        self._handlers = Handlers(
            replace(handler, limit=limits.get(handler.kind, handler.limit)) for handler in handlers
        )
        self._events = events
        self._bell = Bell()
        # PostgreSQL tells of everything; the timer is for what got lost.
        told = database.dialect == "postgresql"
        poll = self._settings.lease if told else self._settings.poll
        self._followers = Followers(database, poll)
        self._bell.add(self._followers.ring)
        self._listener = PostgresListener(database, self._bell) if told else None
        self._listening = False
        self._starting = threading.Lock()
        process = f"{gateway or this_gateway()}/{os.getpid()}"
        self._runner = Runner(
            database,
            self._handlers,
            Rules(
                runner=f"{process}/{secrets.token_hex(4)}",
                lease=self._settings.lease,
                running=self._settings.running,
                losses=self._settings.losses,
                queued_for=QUEUED_FOR,
                on_time=ON_TIME,
            ),
            Limits(
                here=self._settings.here,
                poll=poll,
                deadline_grace=DEADLINE_GRACE,
                watch=not told,
            ),
            self._bell,
            self._ended,
            self._clean,
        )
        self._started = False

    def start(self) -> None:
        """Run jobs, in this process, until `close`."""
        self._listen()
        self._started = True
        self._runner.start()

    def close(self, grace: float | None = None) -> None:
        """Stop: what runs comes to the end of its step and goes back into the queue.

        Args:
            grace: seconds that it has for that; default `grace` in the settings.
        """
        if self._started:
            self._runner.close(self._settings.grace if grace is None else grace)
        self._followers.close()
        with self._starting:
            if self._listener is not None and self._listening:
                self._listening = False
                self._listener.close()

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def submit(
        self,
        kind: str,
        arguments: BaseModel | Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - it is what the caller calls it
        unique: bool = False,
        not_before: float | None = None,
        deadline: float | None = None,
    ) -> Job:
        """Put a job into the queue. It survives whatever happens from now on.

        Args:
            arguments: what the kind's model is made of.
            key: one job of a key runs at a time, in the order of submission; None: any number.
            id: the caller's; submitting the same again returns the job that is there. Known for
                as long as finished jobs are kept.
            unique: return an unfinished job of the same kind and key, if there is one.
            not_before: seconds since the epoch.
            deadline: seconds after it is due, when it ends as failed; default the kind's.

        Raises:
            UnknownKind, BadArguments: nobody here could run it.
            JobConflict: the id is another job's.
            ValueError: the id or the key is too long or empty.
            DatabaseError: it is not known to be in the queue; with an id, submit it again.
        """
        handler = self._handlers.get(kind)
        for what, text in (("id", id), ("key", key)):
            if text is not None and not 0 < len(text) <= LONGEST_ID:
                raise ValueError(f"a job's {what} has 1 to {LONGEST_ID} characters")
        if deadline is None:
            deadline = handler.deadline
        wanted = Submission(
            kind=kind,
            arguments=handler.write(arguments),
            key=key,
            # Made here, so that a transaction that is repeated submits the same job.
            id=id or secrets.token_hex(8),
            unique=unique,
            not_before=not_before,
            deadline=deadline,
        )
        job = self._database.run(
            lambda connection: insert(connection, wanted, now(connection).wall),
            idempotent=True,
            deadline=SUBMIT_FOR,
        )
        self._bell.ring("submitted", job.number)
        return job

    def find(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            UnknownJob: there is none.
        """
        with self._database.read() as connection:
            job = rows.find(connection, job_id)
        if job is None:
            raise UnknownJob(f"there is no job {job_id}")
        return job

    def list(
        self,
        *,
        states: Sequence[State] = (),
        kind: str | None = None,
        key: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return jobs, the latest first.

        Args:
            states: only these; none: all.
        """
        query = sa.select(table).order_by(table.c.number.desc()).limit(limit)
        if states:
            query = query.where(table.c.state.in_([state.value for state in states]))
        if kind is not None:
            query = query.where(table.c.kind == kind)
        if key is not None:
            query = query.where(table.c.key == key)
        with self._database.read() as connection:
            return [rows.job(row) for row in connection.execute(query)]

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that waits, or ask one that runs to stop; a finished one stays as it is.

        Raises:
            UnknownJob: there is none.
        """
        found = self._database.run(lambda connection: cancel(connection, job_id), idempotent=True)
        if found is None:
            raise UnknownJob(f"there is no job {job_id}")
        job, changed = found
        if changed:
            self._bell.ring("cancel" if job.state is State.RUNNING else "finished", job.number)
            if job.state.finished:
                self._ended(job)
        return job

    async def wait(self, job_id: str) -> Job:
        """Return a job once it has finished; `asyncio.timeout` limits the wait.

        Raises:
            UnknownJob: there is none.
        """
        async for job in self.follow(job_id):
            if job.state.finished:
                return job
        raise UnknownJob(f"the job {job_id} was removed, or jobs are closed here")

    async def follow(self, job_id: str) -> AsyncIterator[Job]:
        """Yield a job as it is now and whenever it has changed, until it has finished.

        Changes in between may be left out; the last is not.

        Raises:
            UnknownJob: there is none.
        """
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[Job | None] = asyncio.Queue()

        def deliver(job: Job | None) -> None:
            # A loop that was closed meanwhile has nobody waiting.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(news.put_nowait, job)

        follower = self._follow(job_id, deliver)
        known = False
        try:
            ended = False
            while not ended:
                told = [await news.get()]
                while not news.empty():
                    told.append(news.get_nowait())
                # None is the last that is told, and may come right behind how the job stood.
                ended = told[-1] is None
                latest = [job for job in told if job is not None][-1:]
                if not (latest or known):
                    raise UnknownJob(f"there is no job {job_id}")
                known = True
                # Only the latest counts for somebody who is slow.
                for job in latest:
                    yield job
                    ended = ended or job.state.finished
        finally:
            self._followers.remove(follower)

    def watch(self, job_ids: Sequence[str]) -> Iterator[tuple[str, Job | None]]:
        """Yield each of these jobs now and whenever it has changed, until all have finished.

        None stands for a job that is not there, or is not any more.
        """
        news: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        left = set(job_ids)

        def deliver(job_id: str, job: Job | None) -> None:
            news.put((job_id, job))

        followers = [self._follow(job_id, functools.partial(deliver, job_id)) for job_id in left]
        try:
            while left:
                job_id, job = news.get()
                yield job_id, job
                if job is None or job.state.finished:
                    left.discard(job_id)
        finally:
            for follower in followers:
                self._followers.remove(follower)

    def set_schedules(self, owner: str, wanted: Sequence[Schedule]) -> None:
        """Make these the schedules of a service, and no others.

        Every gateway that runs the service says so when it starts; each time, a job is submitted
        once.

        Raises:
            BadSchedule: a cron expression or a time zone is wrong.
            UnknownKind, BadArguments: a schedule's job could not be run.
            ValueError: a name is there twice.
        """
        names = [schedule.name for schedule in wanted]
        if len(set(names)) != len(names):
            raise ValueError(f"the schedules of {owner} have a name twice")
        prepared = [
            (schedule, self._handlers.get(schedule.kind).write(schedule.arguments))
            for schedule in wanted
        ]
        for schedule in wanted:
            schedules.check(schedule)

        def declare(connection: sa.Connection) -> None:
            rows.serialize(connection)
            schedules.declare(connection, owner, prepared, now(connection).wall)

        self._database.run(declare, idempotent=True)
        self._bell.ring("anything", None)

    def _follow(self, job_id: str, deliver: Callable[[Job | None], None]) -> Follower:
        self._listen()
        follower = Follower(job_id, deliver)
        self._followers.add(follower)
        return follower

    def _listen(self) -> None:
        with self._starting:
            if self._listener is not None and not self._listening:
                self._listening = True
                self._listener.start()

    def _ended(self, job: Job) -> None:
        if self._events is not None:
            self._events.publish(notice(job))

    def _clean(self) -> None:
        """Remove what need not be kept; one batch after the other."""
        keep, count = self._settings.keep * 86_400, self._settings.keep_count
        while True:
            removed = self._database.run(
                lambda connection: remove_old(connection, keep, count), idempotent=True
            )
            if removed < BATCH:
                return
