"""What is behind the routes: it is checked, written down, and put into the queue."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from backupgw.runtime.database import DatabaseError
from backupgw.runtime.jobs import Jobs, UnknownJob
from backupgw.runtime.restic import ResticError

from .adapter import Adapter, AdapterError
from .archive_adapters import WingsAdapter
from .ignore import IgnoreError
from .incoming import Refusal
from .node import Node
from .records import AlreadyThere, Kind, Operation, Records
from .repositories import Repositories
from .restic_adapter import check_rules
from .servers import Servers
from .settings import WingsSettings
from .snapshots import SnapshotIndex
from .work import Work, kind_of

log = logging.getLogger(__name__)

RESTIC = "restic"


class NodeOperations:
    """See `app.Operations`.

    Args:
        index, repositories: None where restic is not offered.
    """

    def __init__(
        self,
        settings: WingsSettings,
        node: Node,
        adapters: Mapping[str, Adapter],
        records: Records,
        servers: Servers,
        jobs: Jobs,
        repositories: Repositories | None,
        index: SnapshotIndex | None,
    ) -> None:
        self._settings = settings
        self._node = node
        self._adapters = adapters
        self._records = records
        self._servers = servers
        self._jobs = jobs
        self._repositories = repositories
        self._index = index

    def knows(self, server: str) -> bool:
        """See `app.Operations`."""
        return self._servers.knows(server)

    def create(self, server: str, backup: str, adapter: str, ignore: str) -> None:
        """See `app.Operations`."""
        self._adapter(adapter)
        try:
            check_rules(ignore)
        except IgnoreError as error:
            raise Refusal(400, str(error)) from error
        if not self._node.root(server).is_dir():
            raise Refusal(409, "the server has no folder on this node yet")
        try:
            operation = self._records.accept(
                Kind.BACKUP, server, backup, adapter, {"ignore": ignore}
            )
        except AlreadyThere:
            raise Refusal(409, "this backup was asked for already") from None
        self._submit(operation)

    def restore(
        self,
        server: str,
        backup: str,
        adapter: str,
        *,
        truncate: bool,
        download_url: str,
        paths: tuple[str, ...],
    ) -> None:
        """See `app.Operations`."""
        self._adapter(adapter)
        if not self._node.root(server).is_dir():
            raise Refusal(409, "the server has no folder on this node yet")
        arguments = {"truncate": truncate, "download_url": download_url, "paths": list(paths)}
        try:
            operation = self._records.accept(Kind.RESTORE, server, backup, adapter, arguments)
        except AlreadyThere:
            raise Refusal(409, "the server is being restored already") from None
        self._submit(operation)

    def _submit(self, operation: Operation) -> None:
        try:
            self._jobs.submit(
                kind_of(self._node, operation.kind.value),
                Work(number=operation.number),
                key=operation.server,
                id=operation.job,
            )
        except DatabaseError as error:
            log.warning("%s %s cannot be accepted: %s", operation.kind, operation.backup, error)
            self._records.withdraw(operation.number)
            raise Refusal(
                503, "the node cannot take it just now; try again", {"Retry-After": "10"}
            ) from error

    def delete(self, server: str, backup: str, adapter: str) -> None:
        """See `app.Operations`. A Panel in stock sends no adapter: the one that made it counts."""
        made = self._records.backup(backup)
        if made is not None and made.server != server:
            return  # another server's: here there is none of that name
        if made is not None and made.finished is None and self._give_up(made):
            return
        if adapter:
            wanted = [self._adapter(adapter)]
        elif made is not None and made.adapter in self._adapters:
            wanted = [self._adapters[made.adapter]]
        else:
            wanted = list(self._adapters.values())
        for each in wanted:
            try:
                removed = each.delete(server, backup)
            except AdapterError as error:
                log.warning("backup %s cannot be removed: %s", backup, error)
                raise Refusal(
                    503, "the backup cannot be removed just now", {"Retry-After": "30"}
                ) from error
            if removed and each.name == RESTIC:
                self._forget(server)

    def _give_up(self, operation: Operation) -> bool:
        """End a backup that is being made; False: it has just ended by itself."""
        if not self._records.give_up(operation.number):
            return False
        try:
            self._jobs.cancel(operation.job)
        except UnknownJob:
            pass  # it is being submitted just now, and finds out when it begins
        except DatabaseError as error:
            log.warning("backup %s is given up at its end: %s", operation.backup, error)
        return True

    def delete_all(self, server: str) -> None:
        """See `app.Operations`."""
        for operation in self._records.unfinished():
            if operation.kind is Kind.BACKUP and operation.server == server:
                self._give_up(operation)
        for adapter in self._adapters.values():
            if isinstance(adapter, WingsAdapter):
                try:
                    adapter.delete_all(server)
                except AdapterError as error:
                    log.warning("the archives of %s cannot be removed: %s", server, error)
                    raise Refusal(503, "the backups cannot be removed just now") from error
        if self._index is None or self._repositories is None:
            return
        try:
            found = self._index.of_server(server)
        except ResticError as error:
            raise self._away(error) from error
        if found:
            self._index.hide(found, self._repositories.of(server).name)
            self._forget(server)

    def _forget(self, server: str) -> None:
        assert self._repositories is not None
        name = self._repositories.of(server).name
        try:
            self._jobs.submit(
                kind_of(self._node, "forget"), {"repository": name},
                key=f"wings forget {name}", unique=False,
            )  # fmt: skip
        except DatabaseError as error:
            # It is written down, and forgotten with the next one, or after the next start.
            log.warning("a snapshot is forgotten later: %s", error)

    def snapshots(self, server: str, *, with_stats: bool) -> list[dict[str, Any]]:
        """See `app.Operations`."""
        if self._index is None:
            return []
        try:
            found = self._index.of_server(server)
        except ResticError as error:
            raise self._away(error) from error
        if with_stats:
            self._index.wait_for_statistics(found)
        return [self._index.document(each, with_stats=with_stats) for each in found]

    def status(self, server: str, backup: str) -> dict[str, Any] | None:
        """See `app.Operations`."""
        if self._index is None:
            return None
        try:
            found = self._index.of_backup(backup, server)
        except ResticError as error:
            raise self._away(error) from error
        if not found:
            return None
        self._index.wait_for_statistics(found[-1:])
        return self._index.document(found[-1], with_stats=True)

    def _adapter(self, name: str) -> Adapter:
        found = self._adapters.get(name)
        if found is None:
            if name == RESTIC:
                raise Refusal(400, "the restic adapter is not enabled on this node")
            raise Refusal(400, "there is no such backup adapter")
        return found

    def _away(self, error: ResticError) -> Refusal:
        log.warning("%s", error)
        return Refusal(
            503, "the repository cannot be looked at just now; see the node's log",
            {"Retry-After": "30"},
        )  # fmt: skip
