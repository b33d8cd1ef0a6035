"""What is done to repositories apart from backups: deletes, prune, retention, verification.

A delete is answered at once: the snapshot is shown no longer, and forgotten in a moment when no
backup runs. Its data goes when `prune` is due.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from backupgw.runtime.events import DamageFound
from backupgw.runtime.jobs import (
    Backoff,
    JobContext,
    JobFailed,
    JobHandler,
    JobStopped,
    NoArguments,
    Schedule,
    Stop,
)
from backupgw.runtime.jobs.notices import Publisher
from backupgw.runtime.restic import RepositoryDamaged, ResticError, ResticStopped, StopSignal

from .adapter import Stopped
from .node import Node
from .panel import Panel
from .records import Records
from .repositories import Held, Repositories
from .settings import WingsSettings
from .snapshots import BACKUP_TAG, SERVER_TAG, SnapshotIndex, tagged
from .work import kind_of

log = logging.getLogger(__name__)

_AT_A_TIME = 500
"""Snapshots that one `restic forget` is given."""


class One(BaseModel):
    """The arguments of a job about one repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str = ""


class Upkeep:
    """The handlers, and when they are due."""

    def __init__(
        self,
        settings: WingsSettings,
        node: Node,
        repositories: Repositories,
        index: SnapshotIndex,
        records: Records,
        panel: Panel | None,
        events: Publisher,
    ) -> None:
        self._settings = settings
        self._node = node
        self._repositories = repositories
        self._index = index
        self._records = records
        self._panel = panel
        self._events = events

    def kind(self, what: str) -> str:
        """Return the kind of a job: "forget", "prune", "retention" or "check"."""
        return kind_of(self._node, what)

    def handlers(self) -> list[JobHandler]:
        """Return the handlers."""
        often = Backoff(first=15.0, longest=900.0)
        rarely = Backoff(first=300.0, longest=3600.0)
        return [
            JobHandler(self.kind("forget"), self._forget, One, attempts=50, backoff=often),
            JobHandler(self.kind("prune"), self._prune, attempts=5, backoff=rarely, limit=1),
            JobHandler(self.kind("check"), self._check, attempts=3, backoff=rarely, limit=1),
            JobHandler(
                self.kind("retention"), self._retention, attempts=3, backoff=rarely, limit=1
            ),
        ]

    def schedules(self) -> list[Schedule]:
        """Return when what is due."""
        upkeep, retention = self._settings.upkeep, self._settings.retention
        wanted = {
            "prune": upkeep.prune,
            "check": upkeep.check,
            "retention": retention.schedule if retention.flags() else "",
        }
        name = self._node.uuid or "node"
        return [
            Schedule(
                name=f"wings.{what} {name}", kind=self.kind(what), cron=cron, zone=upkeep.zone,
                catch_up=what != "check",
            )
            for what, cron in wanted.items()
            if cron
        ]  # fmt: skip

    def _forget(self, context: JobContext, arguments: One) -> dict[str, Any]:
        wanted = [
            snapshot
            for snapshot, name in self._records.to_remove().items()
            if name == arguments.repository
        ]
        held = self._repositories.named(arguments.repository)
        with self._alone(context, held) as stop:
            for start in range(0, len(wanted), _AT_A_TIME):
                some = wanted[start : start + _AT_A_TIME]
                held.restic.forget(some, stop=stop)
                self._index.forget(some, held.name)
        return {"forgotten": len(wanted)}

    def _prune(self, context: JobContext, _arguments: NoArguments) -> dict[str, Any]:
        for held in self._all():
            with self._alone(context, held) as stop:
                held.restic.prune(stop=stop)
        return {}

    def _check(self, context: JobContext, _arguments: NoArguments) -> dict[str, Any]:
        read = self._settings.upkeep.read_data or None
        for held in self._all():
            try:
                with self._alone(context, held) as stop:
                    held.restic.check(read_data=read, stop=stop)
            except JobFailed as error:
                if not isinstance(error.__cause__, RepositoryDamaged):
                    raise
                self._events.publish(
                    DamageFound(
                        place=held.restic.repository.shown, name=held.name, problem=str(error)
                    )
                )
                raise
        return {}

    def _retention(self, context: JobContext, _arguments: NoArguments) -> dict[str, Any]:
        flags = self._settings.retention.flags()
        removed = 0
        for held in self._all():
            with self._translated(), StopSignal() as stop:
                context.on_stop(stop.set)
                self._index.look(held, stop)
                known = {each.id: each for each in self._index.all_of(held.name)}
                servers = {tagged(each, SERVER_TAG) for each in known.values()} - {""}
                gone = []
                for server in sorted(servers):
                    context.check()
                    groups = held.restic.policy(
                        [*flags, ("--tag", f"{SERVER_TAG}{server}"), ("--group-by", "")], stop=stop
                    )
                    gone += [
                        known[each.id] for group in groups for each in group.remove
                        if each.id in known and not self._listed(tagged(each, BACKUP_TAG))
                    ]  # fmt: skip
            if gone:
                self._index.hide(gone, held.name)
                removed += len(gone)
                with self._alone(context, held) as stop:
                    ids = [each.id for each in gone]
                    held.restic.forget(ids, stop=stop)
                    self._index.forget(ids, held.name)
        return {"removed": removed}

    def _listed(self, backup: str) -> bool:
        """Whether the Panel shows a backup, or might."""
        return bool(backup) and self._panel is not None and self._panel.lists(backup)

    def _all(self) -> list[Held]:
        return [self._repositories.named(name) for name in self._index.names()]

    @contextlib.contextmanager
    def _alone(self, context: JobContext, held: Held) -> Iterator[StopSignal]:
        with self._translated(), StopSignal() as stop:
            context.on_stop(stop.set)
            try:
                with held.gate.alone(stop, self._settings.upkeep.patience):
                    yield stop
            except (ResticStopped, Stopped) as error:
                if context.stop is None:
                    raise JobFailed(str(error), retry=True) from error
                raise JobStopped(context.stop or Stop.HANDED_OVER) from error

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ResticStopped as error:
            raise JobFailed(str(error), retry=True) from error
        except ResticError as error:
            raise JobFailed(str(error), retry=not isinstance(error, RepositoryDamaged)) from error
