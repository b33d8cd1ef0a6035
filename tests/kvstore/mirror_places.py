"""What the mirror's tests share: a mirror over folders that can be made to fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kvstore.failing_place import FailingPlace

from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.mirror import MirrorLayer
from backupgw.kvstore.layers.mirror_places import PlaceStatus, State


class Site:
    """A mirror with its places on disk."""

    def __init__(self, folder: Path, count: int = 2, **options: Any) -> None:
        self.folders = [folder / f"place{number}" for number in range(1, count + 1)]
        self.places = [FailingPlace(PosixFS(str(path), durability="fast")) for path in self.folders]
        self.journal = folder / "state" / "mirror.sqlite3"
        self._changed = threading.Condition()
        self.mirror = MirrorLayer(
            self.places[0],
            self.places[1:],
            str(self.journal),
            sync=False,
            on_change=self._on_change,
            **{"patience": 20.0, **options},
        )

    def _on_change(self, status: PlaceStatus) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, number: int, state: State) -> None:
        """Wait until a place, from 1 on, is in a state."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: self.mirror.status()[number - 1].state is state, timeout=60
            )

    def trees(self) -> list[dict[str, bytes]]:
        """What lies in each place's folder, whatever the mirror says."""
        return [tree(folder) for folder in self.folders]

    def same(self) -> dict[str, bytes]:
        """Check that all places hold the same, and return it."""
        first, *others = self.trees()
        assert all(other == first for other in others)
        return first

    def missed(self) -> list[int]:
        return [status.missed for status in self.mirror.status()]


def tree(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if ".backupgw" not in name:
            found[name] = path.read_bytes() if path.is_file() else b"<folder>"
    return found


@contextmanager
def opened(folder: Path, count: int = 2, **options: Any) -> Iterator[Site]:
    """Make a mirror and open it."""
    site = Site(folder, count, **options)
    site.mirror.create()
    with site.mirror:
        yield site
