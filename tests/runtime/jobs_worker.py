"""A gateway's process that runs jobs, for tests that kill it.

    python -m tests.runtime.jobs_worker URL FOLDER NAME LEASE GRACE

It prints "ready PID"; when that process, a fork, is killed by SIGKILL, there is another at once,
without the second that it takes to import everything.

Each job of the kind "test.work" has an effect outside (a line in a file of its own, which must not
be there twice) and one in the database (a row in the table `effects`). It prints a line at each
stage. Two jobs of a key at a time are noted in FOLDER/violations. SIGTERM stops it as a service
stops.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

import sqlalchemy as sa
from pydantic import BaseModel

from backupgw.runtime.database import open_database
from backupgw.runtime.jobs import Backoff, JobContext, JobHandler, Jobs, JobStopped
from backupgw.runtime.settings_jobs import JobsSettings

EFFECTS = sa.Table(
    "effects",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
)
"""Not unique: what happened twice is there twice."""


class Work(BaseModel):
    """A job's arguments.

    Attributes:
        lane: its key.
        place: how many jobs of the lane stand before it.
        pause: seconds that it takes besides.
        outside: whether it has an effect outside the database.
    """

    lane: str
    place: int
    pause: float = 0.0
    outside: bool = True


class Worker:
    """The handlers, and what they leave behind."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        for part in ("outside", "running"):
            (folder / part).mkdir(exist_ok=True)

    def handlers(self) -> list[JobHandler]:
        return [
            JobHandler("test.work", self.work, Work, backoff=Backoff(first=0.05)),
            JobHandler("test.stubborn", self.stubborn, Work),
        ]

    def work(self, context: JobContext, arguments: Work) -> dict[str, int]:
        with self._alone(context.job.id, arguments.lane):
            self._say("begin", context)
            if arguments.outside:
                context.step(
                    "outside",
                    lambda: self._outside(context),
                    unsure=lambda: self._outside(context, unless_there=True),
                )
                self._say("outside", context)
            context.wait(arguments.pause)
            context.check()
            self._say("middle", context)
            context.transact(
                "inside",
                lambda connection: _effect(connection, arguments),
            )
            self._say("end", context)
        return {"place": arguments.place}

    def stubborn(self, context: JobContext, arguments: Work) -> None:
        """Does not look whether it is to stop."""
        self._say("begin", context)
        threading.Event().wait(arguments.pause)
        self._say("over", context)
        try:
            context.step("late", lambda: self._outside(context))
        except JobStopped as stopped:
            self._say(f"stopped-{stopped.reason.name.lower()}", context)
            raise

    def _outside(self, context: JobContext, *, unless_there: bool = False) -> str:
        path = self.folder / "outside" / context.job.id
        # Made and not written: killed between the two.
        if not (unless_there and path.exists() and path.stat().st_size):
            with path.open("a") as file:
                file.write(f"{self.name} {context.attempt}\n")
        return self.name

    @contextlib.contextmanager
    def _alone(self, job: str, lane: str):  # type: ignore[no-untyped-def]
        mark = self.folder / "running" / lane
        with contextlib.suppress(FileNotFoundError, ValueError):
            other = int(mark.read_text())
            # A mark of a process that was killed says nothing.
            if os.path.exists(f"/proc/{other}"):
                with (self.folder / "violations").open("a") as file:
                    file.write(f"{job} of {lane} ran beside {other}\n")
        mark.write_text(str(os.getpid()))
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def _say(self, stage: str, context: JobContext) -> None:
        # One write: lines of several threads do not mix.
        os.write(1, f"{stage} {context.job.id} {context.attempt}\n".encode())


def _effect(connection: sa.Connection, arguments: Work) -> None:
    connection.execute(sa.insert(EFFECTS).values(lane=arguments.lane, place=arguments.place))


def run() -> None:
    """Run jobs until SIGTERM."""
    url, folder, name, lease, grace = sys.argv[1:6]
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    settings = JobsSettings(
        lease=float(lease), grace=float(grace), poll=0.1, running=8, here=4, losses=100
    )
    database = open_database(url)
    jobs = Jobs(database, Worker(Path(folder), name).handlers(), settings=settings, gateway=name)
    jobs.start()
    os.write(1, f"ready {os.getpid()}\n".encode())
    ended.wait()
    jobs.close()
    database.close()
    os.write(1, b"closed\n")


def main() -> None:
    child = 0
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    while True:
        child = os.fork()
        if child == 0:
            run()
            return
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
