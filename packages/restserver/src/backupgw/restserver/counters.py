"""rest-server's metrics, under its names, so that its dashboards work unchanged."""

from __future__ import annotations

from collections import OrderedDict

from prometheus_client import CollectorRegistry, Counter

from .paths import Target

_LABELS = ("user", "repo", "type")
_CACHED = 4096


class BlobCounters:
    """Objects and bytes written, read and deleted by user, repository and type."""

    def __init__(self, registry: CollectorRegistry) -> None:
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

        self._written = _Pairs(*pair("write", "written"))
        self._read = _Pairs(*pair("read", "read"))
        self._deleted = _Pairs(*pair("delete", "deleted"))

    def written(self, user: str | None, target: Target, size: int) -> None:
        """Count an object of `size` bytes that was stored."""
        self._written.count(user, target, size)

    def read(self, user: str | None, target: Target, size: int) -> None:
        """Count an answer with `size` bytes of an object."""
        self._read.count(user, target, size)

    def deleted(self, user: str | None, target: Target, size: int) -> None:
        """Count an object of `size` bytes that was removed."""
        self._deleted.count(user, target, size)


class _Pairs:
    """Finding a labelled child costs more than counting: the last used ones are kept."""

    def __init__(self, objects: Counter, octets: Counter) -> None:
        self._objects = objects
        self._octets = octets
        self._children: OrderedDict[tuple[str, str, str], tuple[Counter, Counter]] = OrderedDict()

    def count(self, user: str | None, target: Target, size: int) -> None:
        key = (user or "", target.repo, target.type)
        children = self._children.get(key)
        if children is None:
            children = self._objects.labels(*key), self._octets.labels(*key)
            self._children[key] = children
            if len(self._children) > _CACHED:
                self._children.popitem(last=False)
        children[0].inc()
        children[1].inc(size)
