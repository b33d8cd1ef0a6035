"""What nobody would bring to its end: operations without a job, restores that a crash cut off."""

from __future__ import annotations

import logging
import os
import threading
import time

from backupgw.runtime.events import Events
from backupgw.runtime.events.records import Event, JobFinished, JobGivenUp
from backupgw.runtime.jobs import Jobs, UnknownJob

from . import staging
from .endings import Endings
from .node import Node
from .records import Operation, Records

log = logging.getLogger(__name__)

_YOUNG = 10.0
"""Seconds after which an operation has its job."""


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
        self._change = threading.Condition()
        self._rung = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="wings-orphans", daemon=True)

    def publish(self, event: Event) -> bool:
        """Pass an event on, and look."""
        if isinstance(event, JobFinished | JobGivenUp):
            self._ring()
        return self._events.publish(event)

    def start(self, jobs: Jobs) -> None:
        """Begin, with a look at what the last process has left."""
        self._jobs = jobs
        self._rung = True
        self._thread.start()

    def _ring(self) -> None:
        with self._change:
            self._rung = True
            self._change.notify()

    def close(self) -> None:
        """End the thread."""
        with self._change:
            self._closed = True
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        assert self._jobs is not None
        wait: float | None = None
        while True:
            with self._change:
                self._change.wait_for(lambda: self._rung or self._closed, timeout=wait)
                if self._closed:
                    return
                self._rung = False
            wait = None
            try:
                self._end_orphans(self._jobs)
                if any(self._is_young(each) for each in self._records.unfinished()):
                    wait = 15.0
            except Exception:
                # A defect or a database that is away must not end the thread.
                log.exception("operations without a job cannot be looked for")
                wait = 30.0

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
