"""The jobs of backups and restores: each is carried out, tried again, or ended.

A job is a row of the gateway's database (docs/jobs.md), and what it is about a row of the node's
records, which decide how it ended, once (`endings.py`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from backupgw.runtime.jobs import (
    Backoff,
    JobContext,
    JobFailed,
    JobHandler,
    JobStopped,
    Stop,
)
from backupgw.runtime.restic import StopSignal

from . import staging
from .adapter import (
    Adapter,
    AdapterError,
    BackupRequest,
    Control,
    Progress,
    RestoreRequest,
    Stopped,
)
from .endings import Endings
from .event_hub import BACKUP_PROGRESS, RESTORE_PROGRESS, EventHub
from .hooks import Hooks
from .node import Node
from .records import Operation, Records
from .running_server import RunningServers
from .servers import Servers
from .settings import WingsSettings

log = logging.getLogger(__name__)

ATTEMPTS = 3
PROGRESS_EVERY = 1.0
"""Seconds between two events of progress."""
_DELETED = "it was deleted while it was made"
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
        endings: Endings,
        hub: EventHub,
        hooks: Hooks,
        servers: Servers,
        running: RunningServers,
    ) -> None:
        self._settings = settings
        self._node = node
        self._adapters = adapters
        self._records = records
        self._endings = endings
        self._hub = hub
        self._hooks = hooks
        self._servers = servers
        self._running = running

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
        if operation.unwanted:
            self._endings.end(operation, successful=False, error=_DELETED)
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
        if self._is_wanted(operation):
            self._endings.end(operation, successful=True, outcome=outcome, seconds=seconds)
        else:
            self._endings.end(operation, successful=False, error=_DELETED)
        # Looked at again: from here on, whoever deletes it finds a backup that has ended.
        if not self._is_wanted(operation):
            try:
                adapter.delete(operation.server, operation.backup)
            except AdapterError as error:
                log.warning("backup %s, deleted, stays: %s", operation.backup, error)
            return {}
        return {"size": outcome.size, "checksum": outcome.checksum}

    def _is_wanted(self, operation: Operation) -> bool:
        found = self._records.find(operation.number)
        return found is None or not found.unwanted

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
        self._endings.end(operation, successful=True, seconds=time.monotonic() - began)
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
        self._endings.end(operation, successful=False, error=text)
        return JobFailed(text)


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
