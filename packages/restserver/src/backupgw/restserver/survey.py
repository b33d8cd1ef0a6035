"""What repositories a place holds, found by listing it once.

Who looks again and again keeps a `Memory` of each repository: a folder that has not changed since,
by its own time, is not listed again. On a local disk that makes it as cheap as looking at 260
folders, however many objects lie in them; where a place tells no time of folders, everything is
listed.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import ObjectNotFound

from .paths import MAX_FOLDERS, TYPES, is_id

CONFIG = "config"

_SETTLED = 2.0
"""Seconds after which a folder's time tells of every change: file systems count it in ticks, and
two changes may fall into one. The clocks of place and gateway may differ by that much."""


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

    def add(self, kind: str, found: Folder) -> None:
        """Add what lies in a folder."""
        count = self.types[kind]
        count.objects += found.objects
        count.bytes += found.bytes
        if not found.youngest:
            return
        self.last_write = max(self.last_write or 0.0, found.youngest)
        if kind == "snapshots":
            self.last_snapshot = found.youngest
        elif kind == "locks":
            self.oldest_lock = found.oldest


@dataclass(slots=True)
class Folder:
    """What lies in a folder; times are 0 where none is known."""

    objects: int = 0
    bytes: int = 0
    youngest: float = 0.0
    oldest: float = 0.0

    def add(self, item: ItemInfo) -> None:
        """Add an object."""
        self.objects += 1
        self.bytes += item.size
        if item.mtime:
            self.youngest = max(self.youngest, item.mtime)
            self.oldest = min(self.oldest or item.mtime, item.mtime)


class Memory:
    """What the folders of one repository held when they were last listed: 10 KiB."""

    _FIELDS = 5
    _FIRST_BYTES = 256

    def __init__(self) -> None:
        # Numbers in one piece: as objects they would take ten times as much.
        self._numbers = array("d", bytes(8 * self._FIELDS * (self._FIRST_BYTES + len(TYPES))))

    def known(self, folder: str, changed: float) -> Folder | None:
        """Return what a folder holds if it has not changed since it was listed.

        Args:
            folder: one of the types, or the first byte of packs in hex.
            changed: the folder's time.
        """
        start = self._start(folder)
        then, objects, size, youngest, oldest = self._numbers[start : start + self._FIELDS]
        if not changed or then != changed:
            return None
        return Folder(int(objects), int(size), youngest, oldest)

    def learn(self, folder: str, changed: float, listed: float, found: Folder) -> None:
        """Note what was found.

        Args:
            changed: the folder's time before it was listed.
            listed: when it was listed.
        """
        start = self._start(folder)
        then = changed if listed - changed > _SETTLED else 0.0
        self._numbers[start : start + self._FIELDS] = array(
            "d", (then, found.objects, found.bytes, found.youngest, found.oldest)
        )

    def _start(self, folder: str) -> int:
        if len(folder) == 2:
            return int(folder, 16) * self._FIELDS
        return (self._FIRST_BYTES + TYPES.index(folder)) * self._FIELDS


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


def count(backend: Backend, path: str, memory: Memory | None = None) -> Repository:
    """Count one repository. What that takes of memory does not grow with it.

    Args:
        memory: of this repository; it is brought up to date.

    Raises:
        BackendError: it cannot be listed.
    """
    memory = Memory() if memory is None else memory
    found = Repository(path, {kind: Count() for kind in (CONFIG, *TYPES)})
    base = f"{path}/" if path else ""
    try:
        top = {item.name: item for item in backend.list(path) if item.name in found.types}
    except ObjectNotFound:
        return found
    for kind, item in top.items():
        if kind == CONFIG:
            if not item.directory:
                whole = Folder()
                whole.add(item)
                found.add(kind, whole)
        elif item.directory:
            folder = f"{base}{kind}"
            try:
                if kind != "data":
                    found.add(kind, _listed(backend, folder, kind, item.mtime, memory))
                    continue
                for first in backend.list(folder):
                    if first.directory and _is_first_byte(first.name):
                        found.add(kind, _packs(backend, folder, first, memory))
            except ObjectNotFound:
                continue  # removed while we were looking
    return found


def _packs(backend: Backend, data: str, first: ItemInfo, memory: Memory) -> Folder:
    try:
        return _listed(backend, f"{data}/{first.name}", first.name, first.mtime, memory)
    except ObjectNotFound:
        return Folder()  # removed while we were looking


def _listed(backend: Backend, folder: str, key: str, changed: float, memory: Memory) -> Folder:
    known = memory.known(key, changed)
    if known is not None:
        return known
    listed = time.time()
    found = Folder()
    for item in backend.list(folder):
        if not item.directory and is_id(item.name) and (len(key) != 2 or item.name[:2] == key):
            found.add(item)
    memory.learn(key, changed, listed, found)
    return found


def _is_first_byte(name: str) -> bool:
    return len(name) == 2 and is_id(name * 32) is not None
