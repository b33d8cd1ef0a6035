"""The snapshots of this node's repositories, kept so that nobody has to wait for a restic.

They are read at the start and again every few minutes, because other nodes and people make and
remove some, too; what this node itself makes and removes is here at once. Statistics never change,
so each is counted once, in the background. What was known is there again after a restart.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from backupgw.runtime.restic import (
    RepositoryMissing,
    ResticError,
    ResticStopped,
    Snapshot,
    StopSignal,
)
from backupgw.runtime.restic.messages import snapshot as read_snapshot

from .incoming import canonical
from .records import Records
from .repositories import SHARED, Held, Repositories

log = logging.getLogger(__name__)

FIRST_LOOK = 10.0
"""Seconds that a request waits for the very first look at the repository."""
COUNTING = 5.0
"""Seconds that a request waits for statistics that are not there yet."""
_RETRY = 30.0

BACKUP_TAG = "backup_uuid:"
SERVER_TAG = "server_uuid:"


def tagged(snapshot: Snapshot, prefix: str) -> str:
    """Return the UUID in a snapshot's tag; "" where there is none, or several that differ."""
    found = {tag.removeprefix(prefix) for tag in snapshot.tags if tag.startswith(prefix)}
    value = found.pop() if len(found) == 1 else ""
    return value if canonical(value) else ""


class SnapshotIndex:
    """What is known. For any thread; `close` ends what runs in the background.

    Args:
        refresh: seconds between two looks.
    """

    def __init__(self, repositories: Repositories, records: Records, refresh: float) -> None:
        self._repositories = repositories
        self._records = records
        self._refresh = refresh
        self._change = threading.Condition()
        self._found: dict[str, dict[str, Snapshot]] = {}
        # Added or removed here while a look was under way, which may not have seen it.
        self._news: list[tuple[str, Callable[[dict[str, Snapshot]], None]]] = []
        self._looking = threading.Lock()
        self._looked: dict[str, float] = {}
        self._failures: dict[str, str] = {}
        self._hidden = set(records.to_remove())
        self._statistics = records.statistics()
        self._to_count: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._counting: set[str] = set()
        self._uncountable: set[str] = set()
        self._stop = StopSignal()
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._asked: set[str] = set()
        self._threads = [
            threading.Thread(target=self._look_again, name="wings-snapshots", daemon=True),
            threading.Thread(target=self._count, name="wings-statistics", daemon=True),
        ]

    def start(self) -> None:
        """Bring back what was known, and begin to look."""
        for name in self.names():
            self._bring_back(name)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End what runs."""
        self._closing.set()
        self._wake.set()
        self._stop.set()
        self._to_count.put(None)
        with self._change:
            self._change.notify_all()
        for thread in self._threads:
            thread.join()
        self._stop.close()

    # -- questions

    def of_server(self, server: str) -> list[Snapshot]:
        """Return a server's snapshots, oldest first.

        Raises:
            ResticError: nothing is known, because the repository could not be looked at.
        """
        name = self._repositories.of(server).name
        found = self._known(name)
        return sorted(
            (each for each in found if tagged(each, SERVER_TAG) == server),
            key=lambda each: each.time,
        )

    def of_backup(self, backup: str, server: str | None = None) -> list[Snapshot]:
        """Return the snapshots of a backup, oldest first.

        Args:
            server: of this server only; None: of any.

        Raises:
            ResticError: as `of_server`.
        """
        if server is not None:
            found = self.of_server(server)
        else:
            found = [each for name in self.names() for each in self._known(name)]
            found.sort(key=lambda each: each.time)
        return [each for each in found if tagged(each, BACKUP_TAG) == backup]

    def all_of(self, name: str) -> list[Snapshot]:
        """Return the snapshots of a repository, oldest first.

        Raises:
            ResticError: as `of_server`.
        """
        return sorted(self._known(name), key=lambda each: each.time)

    def document(self, snapshot: Snapshot, *, with_stats: bool) -> dict[str, Any]:
        """Return a snapshot as the API shows it; without statistics where they cannot be had."""
        found: dict[str, Any] = {
            "id": snapshot.id,
            "short_id": snapshot.short_id,
            "time": snapshot.raw_time or snapshot.time.isoformat(),
            "backup_uuid": tagged(snapshot, BACKUP_TAG),
            "server_uuid": tagged(snapshot, SERVER_TAG),
            "paths": list(snapshot.paths),
        }
        if with_stats and (counted := self._statistics.get(snapshot.id)) is not None:
            found["size"], found["total_file_count"] = counted
        return found

    def wait_for_statistics(self, snapshots: Iterable[Snapshot]) -> None:
        """Wait a little for those that are being counted."""
        missing = {each.id for each in snapshots} - self._statistics.keys() - self._uncountable
        if not missing:
            return
        with self._change:
            self._change.wait_for(
                lambda: (
                    not missing - self._statistics.keys() - self._uncountable
                    or self._closing.is_set()
                ),
                timeout=COUNTING,
            )

    def size_of(self, snapshot: Snapshot) -> int | None:
        """Return the bytes that a snapshot's files take, where they were counted."""
        counted = self._statistics.get(snapshot.id)
        return None if counted is None else counted[0]

    def _known(self, name: str) -> list[Snapshot]:
        with self._change:
            if name not in self._found:
                if name not in self._asked:
                    self._asked.add(name)
                    self._wake.set()
                self._change.wait_for(
                    lambda: name in self._found or name in self._failures, timeout=FIRST_LOOK
                )
            if name not in self._found:
                raise ResticError(
                    self._failures.get(name, "the repository does not answer in time")
                )
            return [each for each in self._found[name].values() if each.id not in self._hidden]

    def names(self) -> list[str]:
        """Return the names of the repositories that are known."""
        if not self._repositories.per_server:
            return [SHARED]
        with self._change:
            known = set(self._found) | self._asked
        text = self._records.copy("repositories")
        return sorted(known | set(json.loads(text or "[]")))

    # -- news

    def look(self, held: Held, stop: StopSignal | None = None) -> None:
        """Look at a repository now.

        Raises:
            ResticError: it cannot be looked at; what was known stays.
        """
        with self._looking:
            with self._change:
                self._news.clear()
            raw: list[Snapshot]
            try:
                raw = held.restic.snapshots(locking=False, stop=stop)
            except RepositoryMissing:
                raw = []
            with self._change:
                found = {each.id: each for each in raw}
                for name, change in self._news:
                    if name == held.name:
                        change(found)
                changed = self._found.get(held.name) != found
                self._found[held.name] = found
                self._failures.pop(held.name, None)
                self._looked[held.name] = time.monotonic()
                self._change.notify_all()
        if changed:
            self._keep(held.name, found)
        # Of backups that were deleted while restic was about to end.
        unwanted = self._records.unwanted()
        late = [each for each in found.values() if tagged(each, BACKUP_TAG) in unwanted]
        if late:
            self.hide(late, held.name)
        self._want_statistics(held.name, found)

    def hide(self, snapshots: Iterable[Snapshot], name: str) -> None:
        """Show these no longer: they are to be removed."""
        ids = [each.id for each in snapshots]
        self._records.remove(ids, name)
        with self._change:
            self._hidden.update(ids)

    def forget(self, ids: Iterable[str], name: str) -> None:
        """Note that snapshots are gone."""
        gone = set(ids)

        def drop(found: dict[str, Snapshot]) -> None:
            for each in gone:
                found.pop(each, None)

        with self._change:
            drop(self._found.get(name, {}))
            self._news.append((name, drop))
        self._records.removed(gone)
        with self._change:
            self._hidden -= gone

    # -- in the background

    def _look_again(self) -> None:
        while True:
            self._wake.clear()
            if self._closing.is_set():
                return  # its wake-up may just have been cleared
            wait = self._refresh
            for name in self.names():
                if self._closing.is_set():
                    return
                try:
                    self.look(self._repositories.named(name), self._stop)
                except ResticStopped:
                    return
                except ResticError as error:
                    log.warning("snapshots cannot be listed: %s", error)
                    wait = min(wait, _RETRY)
                    with self._change:
                        self._failures[name] = str(error)
                        self._change.notify_all()
                except Exception:
                    # A defect must not end the thread: nothing new would be shown any more.
                    log.exception("snapshots cannot be listed")
                    wait = min(wait, _RETRY)
            self._wake.wait(wait)

    def _want_statistics(self, name: str, found: dict[str, Snapshot]) -> None:
        with self._change:
            wanted = found.keys() - self._statistics.keys() - self._counting - self._hidden
            self._counting |= wanted
        newest_first = sorted(wanted, key=lambda each: found[each].time, reverse=True)
        for each in newest_first:
            self._to_count.put((name, each))

    def _count(self) -> None:
        while (wanted := self._to_count.get()) is not None and not self._closing.is_set():
            name, snapshot = wanted
            try:
                counted = self._repositories.named(name).restic.stats(
                    snapshot, locking=False, stop=self._stop
                )
                self._records.count(snapshot, counted.bytes, counted.files or 0)
                with self._change:
                    self._statistics[snapshot] = (counted.bytes, counted.files or 0)
            except ResticStopped:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are counted
                log.warning("snapshot %s cannot be counted: %s", snapshot[:8], error)
                with self._change:
                    self._uncountable.add(snapshot)
            finally:
                with self._change:
                    self._counting.discard(snapshot)
                    self._change.notify_all()

    # -- across restarts

    def _keep(self, name: str, found: dict[str, Snapshot]) -> None:
        rows = [
            {
                "id": each.id,
                "time": each.raw_time,
                "paths": each.paths,
                "hostname": each.host,
                "tags": each.tags,
                "tree": each.tree,
            }
            for each in found.values()
        ]
        self._records.keep_copy(f"snapshots {name}", json.dumps(rows))
        if name:
            self._records.keep_copy("repositories", json.dumps(self.names()))

    def _bring_back(self, name: str) -> None:
        text = self._records.copy(f"snapshots {name}")
        if text is None:
            return
        try:
            found = [read_snapshot(each) for each in json.loads(text)]
        except (ValueError, KeyError, TypeError):
            log.warning("what was kept of the snapshots cannot be read; they are listed anew")
            return
        with self._change:
            self._found[name] = {each.id: each for each in found}
