"""rest-server's metrics, under its names, so that its dashboards work unchanged.

Unlike there, clients that make ever new repositories do not make ever new series.

A request adds to plain numbers; `publish` brings them to where /metrics finds them, of all workers.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from .paths import Target

_LABELS = ("user", "repo", "type")
_MOST_UNSHOWN = 4096
OTHERS = "(others)"
"""What repositories beyond the limit are counted as."""


class BlobCounters:
    """Objects and bytes written, read and deleted by user, repository and type. For one thread.

    Args:
        registry: where they are shown.
        most: pairs of user and repository that are shown, those that came first.
    """

    def __init__(self, registry: CollectorRegistry, *, most: int = 500) -> None:
        pairs = _FirstPairs(most)

        def pair(verb: str, past: str) -> tuple[Counter, Counter]:
            name = f"rest_server_blob_{verb}"
            return (
                Counter(
                    f"{name}_total", f"Total number of blobs {past}", _LABELS, registry=registry
                ),
                Counter(
                    f"{name}_bytes_total",
                    f"Total number of bytes {past} to blobs",
                    _LABELS,
                    registry=registry,
                ),
            )

        self._written = _Counts(pairs, *pair("write", "written"))
        self._read = _Counts(pairs, *pair("read", "read"))
        self._deleted = _Counts(pairs, *pair("delete", "deleted"))

    def written(self, user: str | None, target: Target, size: int) -> None:
        """Count an object of `size` bytes that was stored."""
        self._written.count(user, target, size)

    def read(self, user: str | None, target: Target, size: int) -> None:
        """Count an answer with `size` bytes of an object."""
        self._read.count(user, target, size)

    def deleted(self, user: str | None, target: Target, size: int) -> None:
        """Count an object of `size` bytes that was removed."""
        self._deleted.count(user, target, size)

    def publish(self) -> None:
        """Show what was counted since the last time; called every second, and before /metrics."""
        for counts in (self._written, self._read, self._deleted):
            counts.publish()


class _FirstPairs:
    """The users and repositories that are shown by name."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[tuple[str, str]] = set()

    def shown(self, user: str, repo: str) -> tuple[str, str]:
        """Return what a user's work in a repository is counted as."""
        if (user, repo) not in self._seen:
            if len(self._seen) >= self._most:
                return "", OTHERS
            self._seen.add((user, repo))
        return user, repo


class _Counts:
    """What was counted and is not shown yet."""

    def __init__(self, pairs: _FirstPairs, objects: Counter, octets: Counter) -> None:
        self._pairs = pairs
        self._objects = objects
        self._octets = octets
        self._counted: dict[tuple[str | None, str, str], list[int]] = {}

    def count(self, user: str | None, target: Target, size: int) -> None:
        key = (user, target.repo, target.type)
        counted = self._counted.get(key)
        if counted is None:
            if len(self._counted) >= _MOST_UNSHOWN:
                self.publish()
            counted = self._counted[key] = [0, 0]
        counted[0] += 1
        counted[1] += size

    def publish(self) -> None:
        counted, self._counted = self._counted, {}
        for (user, repo, kind), (objects, octets) in counted.items():
            labels = (*self._pairs.shown(user or "", repo), kind)
            self._objects.labels(*labels).inc(objects)
            self._octets.labels(*labels).inc(octets)
