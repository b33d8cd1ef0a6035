"""What repositories a place holds, found by listing it once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import ObjectNotFound

from .paths import MAX_FOLDERS, TYPES, Kind, Target
from .repositories import list_objects

CONFIG = "config"


@dataclass(slots=True)
class Count:
    """Objects of one type."""

    objects: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Repository:
    """A repository as it is stored. Times are seconds since the epoch, None where none is known.

    Attributes:
        path: in the place, "" at its root.
        types: what there is of each type, `config` among them.
        last_write: when the youngest object was stored.
        last_snapshot: when the youngest snapshot was stored.
        oldest_lock: restic's locks are renewed every 5 minutes and stale after 30.
    """

    path: str
    types: dict[str, Count] = field(default_factory=dict)
    last_write: float | None = None
    last_snapshot: float | None = None
    oldest_lock: float | None = None

    @property
    def owner(self) -> str:
        """Whose it is by its path; "" at the root."""
        return self.path.partition("/")[0]

    @property
    def total(self) -> Count:
        """Everything together."""
        return Count(
            sum(count.objects for count in self.types.values()),
            sum(count.bytes for count in self.types.values()),
        )

    def _add(self, kind: str, item: ItemInfo) -> None:
        count = self.types[kind]
        count.objects += 1
        count.bytes += item.size
        when = item.mtime or None
        if when is None:
            return
        self.last_write = max(self.last_write or when, when)
        if kind == "snapshots":
            self.last_snapshot = max(self.last_snapshot or when, when)
        elif kind == "locks":
            self.oldest_lock = min(self.oldest_lock or when, when)


def find(backend: Backend) -> Iterator[str]:
    """Yield the paths of all repositories. A folder with a config or one of restic's folders is
    one.

    Raises:
        BackendError: the place cannot be listed.
    """
    yield from _below(backend, "", 0)


def _below(backend: Backend, folder: str, depth: int) -> Iterator[str]:
    folders = []
    is_repository = False
    try:
        for item in backend.list(folder):
            if item.name == CONFIG or (item.directory and item.name in TYPES):
                is_repository = True
            elif item.directory:
                folders.append(item.name)
    except ObjectNotFound:
        return  # removed while we were looking
    if is_repository:
        yield folder
    if depth < MAX_FOLDERS:
        for name in sorted(folders):
            yield from _below(backend, f"{folder}/{name}" if folder else name, depth + 1)


def count(backend: Backend, path: str) -> Repository:
    """List one repository. Memory does not grow with it.

    Raises:
        BackendError: it cannot be listed.
    """
    found = Repository(path, {kind: Count() for kind in (CONFIG, *TYPES)})
    base = f"{path}/" if path else ""
    config = backend.info(f"{base}{CONFIG}")
    if config.exists and not config.directory:
        found._add(CONFIG, config)
    for kind in TYPES:
        target = Target(Kind.LISTING, path, kind, "", f"{base}{kind}")
        try:
            for item in list_objects(backend, target):
                found._add(kind, item)
        except ObjectNotFound:
            continue  # never made, or removed
    return found
