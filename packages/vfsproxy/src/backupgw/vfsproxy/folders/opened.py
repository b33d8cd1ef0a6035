"""Volumes that are open in this process, with the quota layer around each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack

from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Ledger
from backupgw.runtime.database import Database

from ..accounts import place_of
from ..problems import Problem
from ..volumes import Volume
from . import catalogue
from .records import Folder

log = logging.getLogger(__name__)

Scopes = tuple[str, ...]

_REMEMBERED = 1000
"""Folders, or pairs of them, for which what is in front of the place is kept."""


class OpenVolume:
    """A volume whose place is open.

    Attributes:
        volume: what it is.
        counted: its place with all accounts in front of it; open as long as this is.
    """

    def __init__(self, volume: Volume, ledger: Ledger, database: Database) -> None:
        self.volume = volume
        self._ledger = ledger
        self._belonging = Belonging(database, volume.name)
        self._known: dict[tuple[tuple[str, Scopes], ...], QuotaLayer] = {}
        self.counted = QuotaLayer(
            volume.backend,
            ledger,
            self._belonging.scopes_of,
            place=place_of(volume.name),
            parked=14 * 86_400.0,
            whole=True,
            told=True,
        )

    def open(self) -> None:
        """Open the place; what died there is settled, and what nobody has counted is counted.

        Raises:
            BackendError: the place cannot be used.
        """
        self._require_mounted()
        try:
            self.counted.open()
        except BackendDoesNotExist:
            self.volume.backend.create()
            where = self.volume.local_root or "its place"
            log.info(
                "volume %s: %s was not there; it was made, and is empty", self.volume.name, where
            )
            self.counted.open()

    def _require_mounted(self) -> None:
        """Refuse a folder of this machine in which nothing is of all that was made there: what is
        written below a disk that is not mounted is hidden by it afterwards."""
        root = self.volume.local_root
        if root is None:
            return
        with self._belonging.database.read() as connection:
            folders = catalogue.of_volume(connection, self.volume.name)
            tops = {folder.path.partition("/")[0] for folder in folders}
        if tops and not any(os.path.lexists(root / top) for top in tops):
            raise BackendError(
                f"volume {self.volume.name}: {root} holds nothing of its folders; see that it is "
                f"mounted. If it is to begin empty: mkdir -p {root / min(tops)}"
            )

    def close(self) -> None:
        """Let go of the place."""
        self.counted.close()

    def for_folders(self, folders: Iterable[Folder]) -> QuotaLayer:
        """Return the place as seen by whoever works on these folders, and on no others.

        Never opened or closed: it stands on a place that is open. What counts for it is part of a
        folder's record, so whoever works on the same folders next is given the same.
        """
        accounts = {
            path: folder.scopes
            for folder in folders
            for path in (folder.path, folder.staging, folder.snapshots)
        }
        key = tuple(accounts.items())
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._seen_by(accounts)
        return found

    def _seen_by(self, accounts: Mapping[str, Scopes]) -> QuotaLayer:

        def scopes_of(name: str) -> Scopes:
            return next(
                (
                    scopes
                    for path, scopes in accounts.items()
                    if name.startswith(path) and name[len(path) : len(path) + 1] == "/"
                ),
                (),
            )

        return QuotaLayer(
            self.volume.backend,
            self._ledger,
            scopes_of,
            place=place_of(self.volume.name),
            parked=14 * 86_400.0,
            # Of many uploads that begin together, as many succeed as fit.
            whole=True,
            told=True,
            alike=lambda folder: bool(scopes_of(f"{folder}/")),
        )

    def belonging(self) -> Belonging:
        """Return what tells at this moment whose each name is; for counting."""
        belonging = Belonging(self._belonging.database, self.volume.name)
        belonging.learn()
        return belonging


class Belonging:
    """Tells to which accounts the names of a volume count; what belongs to no folder, to none."""

    def __init__(self, database: Database, volume: str) -> None:
        self.database = database
        self._volume = volume
        self._known: dict[str, Scopes] = {}
        self._last: tuple[str, Scopes] = ("", ())

    def learn(self) -> None:
        """Look all folders up at once."""
        with self.database.read() as connection:
            for folder in catalogue.of_volume(connection, self._volume):
                self._known[folder.path] = folder.scopes
                self._known[folder.id] = folder.scopes

    def scopes_of(self, name: str) -> Scopes:
        """Return the accounts of a name: those of all that lies with it."""
        within, found = self._last
        folder = name[: name.rfind("/") + 1]
        if folder != within or not folder:
            found = self._look_up(name)
            self._last = (folder, found)
        return found

    def _look_up(self, name: str) -> Scopes:
        segments = name.split("/")
        if segments[0] in ("staging", "snapshots"):
            key = segments[1] if len(segments) > 2 else ""
        else:
            key = "/".join(segments[:4]) if len(segments) > 4 else ""
        if not key:
            return ()
        found = self._known.get(key)
        if found is None:
            with self.database.read() as connection:
                folder = (
                    catalogue.find_at(connection, self._volume, key)
                    if "/" in key
                    else catalogue.find(connection, key)
                )
            found = () if folder is None else folder.scopes
            self._known[key] = found
        return found


class Volumes(Mapping[str, OpenVolume]):
    """All volumes of the settings, opened together."""

    def __init__(self, volumes: Mapping[str, Volume], ledger: Ledger, database: Database) -> None:
        self._volumes = {
            name: OpenVolume(volume, ledger, database) for name, volume in volumes.items()
        }
        self._stack = ExitStack()

    def open(self) -> None:
        """Open each. Raises BackendError: one cannot be used, and none is left open."""
        with ExitStack() as stack:
            for volume in self._volumes.values():
                volume.open()
                stack.callback(volume.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close them."""
        self._stack.close()

    def __getitem__(self, name: str) -> OpenVolume:
        return self._volumes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._volumes)

    def __len__(self) -> int:
        return len(self._volumes)

    def of(self, folder: Folder) -> OpenVolume:
        """Return a folder's volume. Raises Problem 503: the settings have it no more."""
        found = self._volumes.get(folder.volume)
        if found is None:
            log.error("folder %s is on volume %s, which is not there", folder.id, folder.volume)
            raise Problem(503, "no-volume", "the folder's volume is not served by this gateway")
        return found
