"""Metrics of the repositories: what each holds, when it was last written to, how old its locks are.

A scrape costs what is shown and no look at the place: a thread counts by the clock, and one process
of all on this machine that serve the place does it for all of them. It writes down what it found in
the state folder, where the others and the next start find it. How many repositories are shown is
limited; what is beyond that is shown as one.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime import metrics, state_folder
from backupgw.runtime.command import CommandError
from backupgw.runtime.settings import Settings

from . import survey
from .counters import OTHERS
from .place import disk_of
from .settings import RestSettings
from .standing_files import REPOSITORIES, standing_path, write_standing
from .survey import Count, Memory, Repository

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

log = logging.getLogger(__name__)

_SHARE = 20
"""Counting may take one part in so many of the time, whatever the interval is."""

_PATIENCE = 5.0
"""Seconds to wait at the end for a look at the place."""

_LABELS = ("place", "repo", "owner")
_REPOSITORY = "backupgw_rest_repository"
_TIMES = (
    ("last_write", "last_write_timestamp_seconds", "When the youngest object was stored."),
    ("last_snapshot", "last_snapshot_timestamp_seconds", "When the youngest snapshot was stored."),
    ("oldest_lock", "oldest_lock_timestamp_seconds", "When the oldest lock was made, if any."),
)
_PLACE = (
    ("known", "backupgw_rest_repositories", "Repositories that the place holds."),
    ("counted", f"{_REPOSITORY}_counted_timestamp_seconds", "When they were last counted."),
    ("seconds", f"{_REPOSITORY}_count_seconds", "How long that took."),
)


class RepositoryMetrics(Collector):
    """Shows the repositories of a place, and counts them by the clock until `close`.

    Args:
        backend: the place, open.
    """

    def __init__(self, settings: Settings, backend: Backend) -> None:
        rest = settings.section("rest", RestSettings)
        self._settings = settings
        self._place = rest.place
        self._most = rest.repository_metrics.most
        self._every = rest.repository_metrics.seconds(local=disk_of(backend) is not None)
        self._backend = backend
        self._path = standing_path(settings, REPOSITORIES)
        self._memories: dict[str, Memory] = {}
        self._seen = (0, 0)
        self._shown: dict[str, Any] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="repositories", daemon=True)
        metrics.share(self)
        if self._every:
            self._thread.start()

    def close(self) -> None:
        """Stop counting. What is in the middle of it ends by itself once the place is closed."""
        metrics.unshare(self)
        self._stop.set()
        if self._every:
            self._thread.join(_PATIENCE)

    # -- showing

    def describe(self) -> Sequence[Metric]:
        """Nothing has to be known beforehand."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield what was found when the place was last counted."""
        shown = self._standing()
        if not shown:
            return
        objects = GaugeMetricFamily(
            f"{_REPOSITORY}_objects", "Objects stored, by type.", labels=(*_LABELS, "type")
        )
        sizes = GaugeMetricFamily(
            f"{_REPOSITORY}_bytes", "Bytes stored, by type.", labels=(*_LABELS, "type")
        )
        times = {
            key: GaugeMetricFamily(f"{_REPOSITORY}_{name}", text, labels=_LABELS)
            for key, name, text in _TIMES
        }
        for found in shown["repositories"]:
            labels = [self._place, found["path"], found["owner"]]
            for kind, count in found["types"].items():
                objects.add_metric([*labels, kind], count["objects"])
                sizes.add_metric([*labels, kind], count["bytes"])
            for key, family in times.items():
                if found[key] is not None:
                    family.add_metric(labels, found[key])
        yield from (objects, sizes, *times.values())
        for key, name, text in _PLACE:
            family = GaugeMetricFamily(name, text, labels=("place",))
            family.add_metric([self._place], shown[key])
            yield family

    def _standing(self) -> dict[str, Any]:
        """Return what was written down last, by whichever process."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._seen:
                self._shown, self._seen = json.loads(self._path.read_text()), stamp
        except (OSError, ValueError):
            return self._shown  # what this process has found out by itself, if it has
        return self._shown

    # -- counting

    def _run(self) -> None:
        try:
            state_folder.prepare(self._path.parent)
        except CommandError as error:
            log.warning("each process counts the repositories for itself: %s", error)
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                pause = self._turn()
            except BackendError as error:
                log.warning("the repositories cannot be counted for the metrics: %s", error)
                pause = self._every

    def _turn(self) -> float:
        """Count if it is time and nobody else does; return the seconds until the next turn."""
        with _alone(self._path) as alone:
            age = time.time() - float(self._standing().get("counted", 0.0))
            if 0 <= age < self._every:
                return self._every - age
            if alone:
                return max(self._every, self._count() * _SHARE)
        return self._every

    def _count(self) -> float:
        """Count everything; return how many seconds that took."""
        begun = time.monotonic()
        shown: list[Repository] = []
        others: Repository | None = None
        memories: dict[str, Memory] = {}
        known = 0
        for path in survey.find(self._backend):
            if self._stop.is_set():
                return 0.0
            memories[path] = self._memories.get(path) or Memory()
            found = survey.count(self._backend, path, memories[path])
            known += 1
            if known <= self._most:
                shown.append(found)
            else:
                others = _together(others, found)
        if others is not None:
            shown.append(others)
        self._memories = memories
        took = time.monotonic() - begun
        everything = {
            "counted": time.time(),
            "seconds": took,
            "known": known,
            "repositories": [
                {**asdict(each), "owner": "" if each is others else each.owner} for each in shown
            ],
        }
        self._shown = everything
        try:
            write_standing(self._settings, REPOSITORIES, everything)
        except OSError as error:
            log.warning("the metrics of repositories cannot be written down: %s", error)
        return took


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Tell whether this process is the only one that counts, as long as the block lasts."""
    try:
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield True  # no state folder: each process counts for itself
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(lock)


def _together(others: Repository | None, found: Repository) -> Repository:
    if others is None:
        others = Repository(OTHERS, {kind: Count() for kind in found.types})
    for kind, count in found.types.items():
        others.types[kind].objects += count.objects
        others.types[kind].bytes += count.bytes
    others.last_write = _latest(others.last_write, found.last_write)
    others.last_snapshot = _latest(others.last_snapshot, found.last_snapshot)
    locks = [lock for lock in (others.oldest_lock, found.oldest_lock) if lock is not None]
    others.oldest_lock = min(locks, default=None)
    return others


def _latest(*times: float | None) -> float | None:
    return max((each for each in times if each is not None), default=None)
