"""Waiting for jobs: one thread asks for all who wait, when there is news."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import sqlalchemy as sa

from ..database import Database, DatabaseError
from ..database.tables.jobs import jobs
from .records import Job
from .rows import job

logger = logging.getLogger(__name__)

Deliver = Callable[[Job | None], None]
"""Given the job whenever it has changed; None: there is no such job, or no longer."""


class Follower:
    """Somebody who waits for one job."""

    def __init__(self, job_id: str, deliver: Deliver) -> None:
        self.job_id = job_id
        self.deliver = deliver
        self.version = 0
        self.number: int | None = None


class Followers:
    """Tells followers of changes, from a thread that is started for the first of them."""

    def __init__(self, database: Database, poll: float) -> None:
        """Describe it.

        Args:
            poll: seconds after which it looks although nobody rang.
        """
        self._database = database
        self._poll = poll
        self._change = threading.Condition()
        self._followers: dict[Follower, None] = {}
        self._rung = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, follower: Follower) -> None:
        """Tell `follower` how its job stands, and of each change."""
        with self._change:
            if self._closed:
                raise RuntimeError("these jobs are closed")
            self._followers[follower] = None
            self._rung = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobs-follow", daemon=True)
                self._thread.start()
            self._change.notify()

    def remove(self, follower: Follower) -> None:
        """Tell it nothing more."""
        with self._change:
            self._followers.pop(follower, None)

    def ring(self, _change: str, number: int | None) -> None:
        """There is news of a job; a `Listener`."""
        with self._change:
            if any(
                number is None or follower.number in (None, number) for follower in self._followers
            ):
                self._rung = True
                self._change.notify()

    def close(self) -> None:
        """End the thread; who still waits is told that there is no job."""
        with self._change:
            self._closed = True
            left = list(self._followers)
            self._followers.clear()
            self._change.notify()
        if self._thread is not None:
            self._thread.join()
        for follower in left:
            follower.deliver(None)

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(
                    lambda: self._rung or self._closed,
                    timeout=self._poll if self._followers else None,
                )
                if self._closed:
                    return
                self._rung = False
                followers = list(self._followers)
            if followers:
                try:
                    self._tell(followers)
                except DatabaseError as error:
                    logger.info("cannot see how jobs stand for now: %s", error)

    def _tell(self, followers: list[Follower]) -> None:
        ids = {follower.job_id for follower in followers}
        with self._database.read() as connection:
            rows = connection.execute(sa.select(jobs).where(jobs.c.id.in_(ids))).all()
        found = {row.id: job(row) for row in rows}
        for follower in followers:
            current = found.get(follower.job_id)
            if current is None:
                self.remove(follower)
                follower.deliver(None)
            elif current.version != follower.version:
                follower.version = current.version
                follower.number = current.number
                follower.deliver(current)
