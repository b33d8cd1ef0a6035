"""What nobody would bring to its end: operations without a job, restores that a crash cut off."""

from __future__ import annotations

import logging
import os
import time

from backupgw.runtime.events import Events
from backupgw.runtime.events.records import Event, JobFinished, JobGivenUp
from backupgw.runtime.jobs import Jobs, UnknownJob
from backupgw.runtime.rounds import Rounds

from . import staging
from .endings import Endings
from .node import Node
from .records import Operation, Records

log = logging.getLogger(__name__)

_YOUNG = 10.0
"""Seconds after which an operation has its job."""
_AGAIN = 15.0
"""Seconds until those are looked at again that are too young to tell."""


def put_in_order(node: Node, records: Records, endings: Endings) -> None:
    """Bring restores to an end that a crash has interrupted, before any server may start."""
    waiting = {each.job: each for each in records.unfinished()}
    for server in interrupted_restores(node):
        try:
            found = staging.recover(str(node.root(server)))
        except OSError:
            log.exception("the interrupted restore of %s cannot be put in order", server)
            continue
        if found is not None and found.restored and found.name in waiting:
            endings.end(waiting[found.name], successful=True)


def interrupted_restores(node: Node) -> list[str]:
    """Return the servers in whose folders a restore was begun and not brought to its end."""
    with os.scandir(node.data) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and staging.unfinished(entry.path)
        )


class Orphans:
    """Looks for operations whose job has ended without them, whenever a job ends.

    It stands between the jobs and the gateway's events.
    """

    def __init__(self, records: Records, endings: Endings, events: Events) -> None:
        self._records = records
        self._endings = endings
        self._events = events
        self._started = time.time()
        self._jobs: Jobs | None = None
        self._rounds = Rounds(
            self._round,
            name="wings-orphans",
            failing="operations without a job cannot be looked for",
        )

    def publish(self, event: Event) -> bool:
        """Pass an event on, and look."""
        if isinstance(event, JobFinished | JobGivenUp):
            self._rounds.ring()
        return self._events.publish(event)

    def start(self, jobs: Jobs) -> None:
        """Begin, with a look at what the last process has left."""
        self._jobs = jobs
        self._rounds.start()

    def close(self) -> None:
        """End the thread."""
        self._rounds.close()

    def _round(self) -> float | None:
        assert self._jobs is not None
        self._end_orphans(self._jobs)
        young = any(self._is_young(each) for each in self._records.unfinished())
        return _AGAIN if young else None

    def _end_orphans(self, jobs: Jobs) -> None:
        """End as failed what has no job any more that could end it.

        A job ends without its handler where it was cancelled in the queue, came too late, or where
        its process died again and again.
        """
        for operation in self._records.unfinished():
            try:
                job = jobs.find(operation.job)
            except UnknownJob:
                if self._is_young(operation):
                    continue  # it is being submitted just now
                error = "it was lost before it was begun"
            else:
                if not job.state.finished:
                    continue
                error = job.error or f"its job was {job.state.value}"
            self._endings.end(operation, successful=False, error=error)

    def _is_young(self, operation: Operation) -> bool:
        # What another process has accepted is submitted by nobody any more.
        return operation.created >= self._started and time.time() - operation.created < _YOUNG
