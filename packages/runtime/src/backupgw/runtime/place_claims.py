"""Which ledger the names of a place are claimed in, where the place cannot create a name once.

Gateways that share a database (`[state] database` on PostgreSQL) claim names there, and so does
every other program of backupgw that has the same settings. Without one, the processes of this
machine share `names.sqlite3` in the state folder, if there is a folder that this user can write.

The ledger knows a place by its URL without credentials, so two sections, or two gateways that call
it by different names, take turns as well. Places of different accounts whose URLs agree wait for
each other now and then, nothing more.
"""

from __future__ import annotations

import contextlib
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .secrets import redact_url
from .settings_state import StateSettings

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend
    from backupgw.kvstore.ledger.claiming import NameLedger

    from .settings import Settings
    from .settings_models import PlaceSettings

FILE = "names.sqlite3"
"""In the state folder."""

SETTLING = 5.0
"""Seconds after the death of a process of this machine in which the last that it had sent to a
service has arrived there. In a database a session is known to be dead long after that."""

_log = logging.getLogger(__name__)


def claimed(settings: Settings, place: PlaceSettings, backend: Backend) -> Backend:
    """Return a place's backend with its names claimed, or itself where that needs nothing.

    Args:
        place: its section.
        backend: as its section says, without layers; neither created nor open.
    """
    if not place.claims or backend.capabilities.atomic_create:
        return backend
    from backupgw.kvstore.layers.claims import ClaimsLayer

    known_as = f"names: {redact_url(place.url).replace('***@', '').rstrip('/')}"
    state = settings.section("state", StateSettings)
    if (state.database or "").startswith("postgres"):
        return ClaimsLayer(backend, partial(_in_database, settings), known_as)
    from . import state_folder

    folder = state_folder.find(settings)
    if not _is_usable(folder):
        _log.debug("names at %r are not claimed: this user cannot write %s", backend, folder)
        return backend
    return ClaimsLayer(backend, partial(_in_file, folder), known_as, settling=SETTLING)


def _is_usable(folder: Path) -> bool:
    """Whether the folder is there and can be written, or can be made."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _in_database(settings: Settings) -> NameLedger:
    from backupgw.kvstore.backends.errors import BackendError

    from .command import CommandError
    from .database import DatabaseUnavailable
    from .database.state import open_state
    from .ledger import PostgresLedger

    try:
        # Closed at once: it was asked whether its tables are there, and the ledger connects by
        # itself.
        with open_state(settings, application="backupgw: names") as database:
            return PostgresLedger(database)
    except CommandError as error:
        raise BackendError(
            f"names cannot be claimed in the gateways' database: {error}",
            retryable=isinstance(error, DatabaseUnavailable),
        ) from error


def _in_file(folder: Path) -> NameLedger:
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.ledger import SQLiteLedger

    from . import state_folder
    from .command import CommandError

    class OwnersLedger(SQLiteLedger):
        """What root makes, it makes for the folder's owner, as all in the state folder."""

        def open(self) -> None:
            super().open()
            if os.geteuid() == 0:
                owner = folder.stat()
                for path in folder.glob(f"{FILE}*"):
                    with contextlib.suppress(FileNotFoundError):
                        os.chown(path, owner.st_uid, owner.st_gid)

    try:
        return OwnersLedger(str(state_folder.prepare(folder) / FILE))
    except CommandError as error:
        raise BackendError(f"names cannot be claimed: {error}") from error
