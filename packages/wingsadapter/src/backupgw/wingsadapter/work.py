"""The jobs: backups, restores, deletes and upkeep, each ended and told of whatever happens.

A job is a row of the gateway's database (docs/jobs.md), and what it is about a row of the node's
records. The records decide how an operation ended, once; the Panel, the stream of events, metrics
and the gateway's own events are told of that end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from backupgw.runtime.events import BackupFinished, Events
from backupgw.runtime.events.records import Event, JobFinished, JobGivenUp
from backupgw.runtime.jobs import (
    Backoff,
    JobContext,
    JobFailed,
    JobHandler,
    Jobs,
    JobStopped,
    Stop,
    UnknownJob,
)
from backupgw.runtime.restic import StopSignal

from . import measures, staging
from .adapter import (
    Adapter,
    AdapterError,
    BackupOutcome,
    BackupRequest,
    Control,
    Progress,
    RestoreRequest,
    Stopped,
)
from .event_hub import (
    BACKUP_COMPLETED,
    BACKUP_PROGRESS,
    RESTORE_COMPLETED,
    RESTORE_PROGRESS,
    EventHub,
)
from .hooks import Hooks
from .node import Node
from .records import Kind, Operation, Records
from .reports import Reporter
from .running_server import RunningServers
from .servers import Servers
from .settings import WingsSettings

log = logging.getLogger(__name__)

ATTEMPTS = 3
PROGRESS_EVERY = 1.0
"""Seconds between two events of progress."""
_YOUNG = 10.0
"""Seconds after which an operation has its job."""
_SLACK = 1.02
"""What files may take on a disk beyond their bytes, at least."""


class Work(BaseModel):
    """The arguments of a job: the number of its operation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int


class Worker:
    """What the handlers of backups and restores work with."""

    def __init__(
        self,
        settings: WingsSettings,
        node: Node,
        adapters: Mapping[str, Adapter],
        records: Records,
        reporter: Reporter,
        hub: EventHub,
        hooks: Hooks,
        servers: Servers,
        running: RunningServers,
        events: Events,
    ) -> None:
        self._settings = settings
        self._node = node
        self._adapters = adapters
        self._records = records
        self._reporter = reporter
        self._hub = hub
        self._hooks = hooks
        self._servers = servers
        self._running = running
        self._events = events
        self._started = time.time()

    def handlers(self) -> list[JobHandler]:
        """Return the handlers of backups and restores, which only this node has the files for."""
        backoff = Backoff(first=10.0, longest=300.0)
        limit = self._settings.time_limit
        return [
            JobHandler(
                kind_of(self._node, "backup"), self._backup, Work, attempts=ATTEMPTS,
                backoff=backoff, limit=self._settings.running, deadline=limit,
            ),
            JobHandler(
                kind_of(self._node, "restore"), self._restore, Work, attempts=ATTEMPTS,
                backoff=backoff, limit=self._settings.restores, deadline=limit,
            ),
        ]  # fmt: skip

    # -- backups

    def _backup(self, context: JobContext, arguments: Work) -> dict[str, Any]:
        operation = self._records.find(arguments.number)
        if operation is None or operation.finished is not None:
            return {}
        root = str(self._node.root(operation.server))
        request = BackupRequest(
            operation.server, operation.backup, root, str(operation.arguments.get("ignore", ""))
        )
        began = time.monotonic()
        with self._controlled(context, operation, BACKUP_PROGRESS) as control:
            try:
                adapter = self._adapter(operation)
                self._hooks.before(request, adapter.name, control)
                try:
                    outcome = adapter.create(request, control)
                except BaseException:
                    self._hooks.after(request, adapter.name, control, successful=False)
                    raise
                self._hooks.after(request, adapter.name, control, successful=True)
            except BaseException as error:
                raise self._failed(context, operation, error) from error
        seconds = time.monotonic() - began
        for warning in outcome.warnings:
            log.warning("backup %s: %s", operation.backup, warning)
        self.end(operation, successful=True, outcome=outcome, seconds=seconds)
        return {"size": outcome.size, "checksum": outcome.checksum}

    # -- restores

    def _restore(self, context: JobContext, arguments: Work) -> dict[str, Any]:
        operation = self._records.find(arguments.number)
        if operation is None or operation.finished is not None:
            return {}
        began = time.monotonic()
        with self._controlled(context, operation, RESTORE_PROGRESS) as control:
            try:
                self._restore_files(operation, control)
            except BaseException as error:
                raise self._failed(context, operation, error) from error
        self.end(operation, successful=True, seconds=time.monotonic() - began)
        return {}

    def _restore_files(self, operation: Operation, control: Control) -> None:
        root = str(self._node.root(operation.server))
        adapter = self._adapter(operation)
        given = operation.arguments
        request = RestoreRequest(
            operation.server,
            operation.backup,
            given.get("download_url") or None,
            tuple(given.get("paths") or ()),
            cross_server=self._settings.cross_server_restore,
        )
        try:
            before = staging.recover(root)
        except OSError as error:
            raise AdapterError(f"{root}: {error.strerror}") from error
        if before is not None and before.restored and before.name == operation.job:
            return  # an earlier attempt came to its end, and could not say so
        self._refuse_running(operation.server, root)
        found = adapter.find(request, control)
        try:
            with staging.Staging(root, operation.job) as area:
                self._require_room(operation, found.size, area.room())
                try:
                    adapter.unpack(request, area.target, control)
                    if self._node.owner is not None:
                        area.own(*self._node.owner, control.check)
                    control.check()
                    area.sync()
                    self._refuse_running(operation.server, root)
                except BaseException:
                    area.discard()
                    raise
                area.swap(whole=bool(given.get("truncate")) and not request.paths)
                try:
                    area.discard()
                except OSError as error:
                    log.warning("%s: what was replaced stays there: %s", root, error)
        except staging.StagingFailed as error:
            raise AdapterError(str(error)) from error
        except OSError as error:
            raise AdapterError(f"{error.filename or root}: {error.strerror}") from error

    def _refuse_running(self, server: str, root: str) -> None:
        try:
            why = self._running.why_not(server, root)
        except OSError as error:
            raise AdapterError(f"the server's folder {root}: {error.strerror}") from error
        if why is not None:
            raise AdapterError(why)

    def _require_room(self, operation: Operation, size: int | None, room: int) -> None:
        if size is None:
            return
        needed = int(size * _SLACK)
        if needed > room:
            raise AdapterError(
                f"the backup takes {needed} bytes beside what is there, and {room} are free; "
                "nothing was touched"
            )
        limit = self._servers.disk_limit(operation.server)
        if limit is not None and size > limit:
            raise AdapterError(
                f"the backup takes {size} bytes, and the server may have {limit}; "
                "nothing was touched"
            )

    # -- both

    def _adapter(self, operation: Operation) -> Adapter:
        adapter = self._adapters.get(operation.adapter)
        if adapter is None:
            raise AdapterError(f"the adapter {operation.adapter} is not offered any more")
        return adapter

    @contextlib.contextmanager
    def _controlled(
        self, context: JobContext, operation: Operation, name: str
    ) -> Iterator[Control]:
        last = 0.0

        def progress(found: Progress) -> None:
            nonlocal last
            if context.stopping:
                stop.set()
            now = time.monotonic()
            if now - last < PROGRESS_EVERY:
                return
            last = now
            context.progress(found.bytes, found.total_bytes, unit="bytes")
            self._hub.publish(name, operation.server, progress_document(operation.backup, found))

        with StopSignal() as stop:
            context.on_stop(stop.set)
            yield Control(stop, progress)

    def _failed(
        self, context: JobContext, operation: Operation, error: BaseException
    ) -> BaseException:
        """Return what the handler raises; where there is no other attempt, the end is told."""
        reason = context.stop
        if reason is Stop.LOST or (reason is Stop.HANDED_OVER and isinstance(error, Stopped)):
            # Another attempt goes on: in the process that comes after this one.
            return JobStopped(reason)
        if not isinstance(error, AdapterError):
            if not isinstance(error, Exception):
                return error
            log.exception("%s %s failed", operation.kind, operation.backup)
            text = f"{type(error).__name__}: {error}"
            retry = False
        else:
            # Stopped, and not by us: somebody has ended the program.
            text, retry = str(error), error.retryable or isinstance(error, Stopped)
        if reason in (Stop.CANCELLED, Stop.DEADLINE):
            text = f"{text} ({reason.value})"
            retry = False
        elif retry and context.attempt - context.job.losses < ATTEMPTS:
            log.warning("%s %s: %s; it is tried again", operation.kind, operation.backup, text)
            return JobFailed(text, retry=True)
        self.end(operation, successful=False, error=text)
        return JobFailed(text)

    def end(
        self,
        operation: Operation,
        *,
        successful: bool,
        outcome: BackupOutcome | None = None,
        error: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Note how an operation has ended, and tell everybody; the first word counts."""
        document = {} if outcome is None else _outcome_document(outcome)
        ended = self._records.finish(
            operation.number,
            successful=successful,
            outcome=document,
            error=error,
            report=self._reporter.tells,
        )
        if ended is None:
            return
        level = logging.INFO if successful else logging.ERROR
        log.log(
            level,
            "%s %s of %s %s%s",
            operation.kind,
            operation.backup,
            operation.server,
            "is complete" if successful else "has failed",
            f": {error}" if error else "",
        )
        self._reporter.ring()
        if operation.kind is Kind.BACKUP:
            restic = operation.adapter == "restic"
            self._hub.publish(
                BACKUP_COMPLETED,
                operation.server,
                {
                    "backup_uuid": operation.backup,
                    "is_successful": successful,
                    # restic has no checksum of an archive, and its size is not the Panel's affair.
                    "checksum": "" if restic else document.get("checksum", ""),
                    "checksum_type": "sha1",
                    "file_size": 0 if restic else document.get("size", 0),
                },
            )
            self._events.publish(
                BackupFinished(
                    subject=operation.server,
                    backup=operation.backup,
                    successful=successful,
                    size=None if outcome is None else outcome.size,
                    seconds=None if seconds is None else round(seconds, 3),
                    reason=error,
                )
            )
        else:
            self._hub.publish(
                RESTORE_COMPLETED, operation.server, {"backup_uuid": operation.backup}
            )
        measures.ended(operation, outcome, seconds, successful=successful)

    def end_orphans(self, jobs: Jobs) -> None:
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
            self.end(operation, successful=False, error=error)

    def has_young(self) -> bool:
        """Whether an operation is so new that its job may not be there yet."""
        return any(self._is_young(each) for each in self._records.unfinished())

    def _is_young(self, operation: Operation) -> bool:
        # What another process has accepted is submitted by nobody any more.
        return operation.created >= self._started and time.time() - operation.created < _YOUNG

    def put_in_order(self) -> None:
        """Bring restores to an end that a crash has interrupted, before any server may start."""
        waiting = {each.job: each for each in self._records.unfinished()}
        for server in interrupted_restores(self._node):
            try:
                found = staging.recover(str(self._node.root(server)))
            except OSError:
                log.exception("the interrupted restore of %s cannot be put in order", server)
                continue
            if found is not None and found.restored and found.name in waiting:
                self.end(waiting[found.name], successful=True)


class Orphans:
    """Looks for operations whose job has ended without them, whenever a job ends.

    It stands between the jobs and the gateway's events.
    """

    def __init__(self, worker: Worker, events: Events) -> None:
        self._worker = worker
        self._events = events
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
                self._worker.end_orphans(self._jobs)
                if self._worker.has_young():
                    wait = 15.0
            except Exception:
                # A defect or a database that is away must not end the thread.
                log.exception("operations without a job cannot be looked for")
                wait = 30.0


def kind_of(node: Node, what: str) -> str:
    """Return the kind of a job that only this node may run: it has the files."""
    name = "".join(sign if sign.isalnum() else "_" for sign in node.uuid.lower())
    return f"wings.{what}.node_{name}" if name else f"wings.{what}"


def progress_document(backup: str, found: Progress) -> dict[str, Any]:
    """Return progress as it is told to those who listen."""
    left = found.seconds_left
    return {
        "backup_uuid": backup,
        "percent": None if found.fraction is None else round(100 * found.fraction, 1),
        "bytes": found.bytes,
        "total_bytes": found.total_bytes,
        "files": found.files,
        "total_files": found.total_files,
        "seconds_left": None if left is None else round(left),
    }


def _outcome_document(outcome: BackupOutcome) -> dict[str, Any]:
    parts = outcome.parts
    return {
        "checksum": outcome.checksum,
        "checksum_type": outcome.checksum_type,
        "size": outcome.size,
        "parts": None if parts is None else [dataclasses.asdict(part) for part in parts],
    }


def interrupted_restores(node: Node) -> list[str]:
    """Return the servers in whose folders a restore was begun and not brought to its end."""
    with os.scandir(node.data) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and staging.unfinished(entry.path)
        )
