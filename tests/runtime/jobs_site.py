"""A database for jobs, its gateways' processes, and what their jobs left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from backupgw.runtime.database import Database, connect, open_database, schema
from backupgw.runtime.jobs import Job, JobHandler, Jobs
from backupgw.runtime.settings_jobs import JobsSettings
from tests.runtime.jobs_worker import EFFECTS, Work, Worker
from tests.servers.process import ServerProcess

ROOT = Path(__file__).parents[2]
PATIENCE = 120
"""Seconds to wait for what must happen; generous, for loaded machines."""


class WorkerProcess(ServerProcess):
    """A gateway's process, see `jobs_worker`."""

    def __init__(self, site: Site, name: str, *, lease: float, grace: float) -> None:
        command = [sys.executable, "-m", "tests.runtime.jobs_worker", site.url, str(site.folder)]
        super().__init__(
            [*command, name, str(lease), str(grace)], ready=r"^ready ([0-9]+)$", directory=ROOT
        )

    @property
    def current(self) -> int:
        """The id of the process that runs jobs."""
        with self._changed:
            return int([line for line in self.lines if line.startswith("ready ")][-1].split()[1])

    def replace(self) -> None:
        """Kill it by SIGKILL, and wait until there is another."""
        old = self.current
        os.kill(old, signal.SIGKILL)
        with self._changed:
            replaced = self._changed.wait_for(lambda: self.current != old, PATIENCE)
        assert replaced, f"there is no other {self._describe()}"

    def give_time_for(self, lines: int) -> None:
        """Wait until it has printed so many lines from now on, but not for long."""
        with self._changed:
            wanted = len(self.lines) + lines
            self._changed.wait_for(lambda: len(self.lines) >= wanted, 0.3)


class Site:
    """A database with the tables of jobs, and a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.folder.mkdir()
        if url.startswith("postgresql"):
            with connect(url) as database:
                schema.migrate(database)
        self.database = open_database(url)
        with self.database.begin() as connection:
            EFFECTS.metadata.create_all(connection)
        self._jobs: list[Jobs] = []
        self._databases = [self.database]

    def open(self) -> Database:
        """Return connections of their own, as another gateway has them."""
        database = open_database(self.url)
        self._databases.append(database)
        return database

    def jobs(
        self,
        handlers: Sequence[JobHandler] = (),
        *,
        database: Database | None = None,
        start: bool = True,
        events: object = None,
        **settings: object,
    ) -> Jobs:
        """Return jobs that are closed at the end, running unless told otherwise."""
        options = JobsSettings.model_validate({"poll": 0.1, "lease": 5, "grace": 5} | settings)
        jobs = Jobs(
            database or self.database,
            handlers,
            settings=options,
            gateway="test",
            events=events,  # type: ignore[arg-type]
        )
        self._jobs.append(jobs)
        if start:
            jobs.start()
        return jobs

    def client(self) -> Jobs:
        """Return jobs that submit the workers' kinds and run nothing."""
        return self.jobs(Worker(self.folder, "client").handlers(), start=False)

    @contextlib.contextmanager
    def worker(
        self, name: str, *, lease: float = 2.0, grace: float = 5.0
    ) -> Iterator[WorkerProcess]:
        """A gateway's process; killed at the end."""
        process = WorkerProcess(self, name, lease=lease, grace=grace)
        try:
            yield process
        finally:
            process.kill()

    def close(self) -> None:
        for jobs in self._jobs:
            jobs.close(grace=1.0)
        for database in self._databases:
            database.close()

    def effects(self) -> dict[str, list[int]]:
        """Return the places of the effects in the database, by lane, in the order they happened."""
        found: dict[str, list[int]] = defaultdict(list)
        with self.database.read() as connection:
            for row in connection.execute(sa.select(EFFECTS).order_by(EFFECTS.c.number)):
                found[row.lane].append(row.place)
        return dict(found)

    def outside(self) -> Counter[str]:
        """Return how often each job had its effect outside the database."""
        return Counter(
            {
                path.name: len(path.read_text().splitlines())
                for path in (self.folder / "outside").iterdir()
            }
        )

    @property
    def violations(self) -> str:
        path = self.folder / "violations"
        return path.read_text() if path.exists() else ""


def work(lane: str, place: int, **more: object) -> Work:
    """Return the arguments of the kind "test.work"."""
    return Work.model_validate({"lane": lane, "place": place} | more)


def finish(jobs: Jobs, ids: Sequence[str]) -> Mapping[str, Job]:
    """Wait until all of these have finished, and return them."""
    done: dict[str, Job] = {}
    for job_id, job in jobs.watch(ids):
        assert job is not None, f"there is no job {job_id}"
        if job.state.finished:
            done[job_id] = job
    return done
