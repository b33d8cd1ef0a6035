"""Nothing of a folder changes while somebody ends it, gives it away or takes it back in time.

Each change of a folder's content (a file gets its name, is removed or renamed) happens inside a
shared fence, which says whether the folder may still be changed as it was when the change was
begun: its status and its generation. Whoever changes these does so inside the exclusive fence, so
that every change of content has either happened before, or is refused. Long uploads hold nothing:
only their last step is inside.

For gateways of one machine a fence is a lock on a file, for gateways that share a PostgreSQL an
advisory lock of a transaction there. Both end with the process that holds them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from backupgw.runtime.database import Connection, Database, DatabaseError
from backupgw.runtime.database.tables.vfs import vfs_folders

from ..problems import FolderChanged
from . import looking
from .records import Folder, Status

log = logging.getLogger(__name__)

_FILES = 256
"""Lock files; folders that share one wait for each other's rare exclusive fence."""


class Fences(Protocol):
    """Of the gateways that share a database. For any thread."""

    def shared(self, folder: Folder) -> contextlib.AbstractContextManager[None]:
        """Change the content of a folder inside.

        Raises:
            FolderChanged: it is not what it was when `folder` was looked up.
        """

    def exclusive(self, folder_id: str) -> contextlib.AbstractContextManager[Connection]:
        """Change status, owner or generation inside, in the transaction that is yielded.

        All changes of content that had begun have ended; none begins.
        """

    def alone(self, folder_id: str) -> contextlib.AbstractContextManager[None]:
        """As `exclusive`, without a transaction: for a folder that is yet to be."""


def fences_of(database: Database, folder: Path) -> Fences:
    """Return the fences for a database.

    Args:
        folder: of lock files, where the database is SQLite; made if it is missing.
    """
    if database.dialect == "postgresql":
        return DatabaseFences(database)
    return FileFences(database, folder)


def check(connection: Connection, folder: Folder) -> None:
    """Raise FolderChanged unless the folder is what it was, and may be changed."""
    row = connection.execute(
        sa.select(vfs_folders.c.status, vfs_folders.c.generation).where(
            vfs_folders.c.id == folder.id
        )
    ).one_or_none()
    _judge(folder, None if row is None else (Status(row.status), row.generation))


def _judge(folder: Folder, found: tuple[Status, int] | None) -> None:
    if found is None:
        raise FolderChanged("the folder is gone")
    status, generation = found
    if generation != folder.generation:
        raise FolderChanged("the folder has changed hands or content meanwhile; try again")
    if not status.writable and status is not folder.status:
        raise FolderChanged(f"the folder is {status}")


class FileFences:
    """By locks on files, for the processes of one machine."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def shared(self, folder: Folder) -> Iterator[None]:
        with self._locked(folder.id, fcntl.LOCK_SH):
            _judge(folder, looking.fence(self._database, folder.id))
            yield

    @contextlib.contextmanager
    def exclusive(self, folder_id: str) -> Iterator[Connection]:
        with self._locked(folder_id, fcntl.LOCK_EX), self._database.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def alone(self, folder_id: str) -> Iterator[None]:
        with self._locked(folder_id, fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _locked(self, folder_id: str, how: int) -> Iterator[None]:
        path = self._folder / f"{int(folder_id[:8], 16) % _FILES:02x}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


class DatabaseFences:
    """By advisory locks of PostgreSQL's transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.contextmanager
    def shared(self, folder: Folder) -> Iterator[None]:
        lock = sa.func.pg_advisory_xact_lock_shared(_key(folder.id))
        with self._locked(lock) as connection:
            check(connection, folder)
            yield

    @contextlib.contextmanager
    def exclusive(self, folder_id: str) -> Iterator[Connection]:
        with self._database.begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_key(folder_id))))
            yield connection

    @contextlib.contextmanager
    def alone(self, folder_id: str) -> Iterator[None]:
        with self._locked(sa.func.pg_advisory_xact_lock(_key(folder_id))):
            yield

    @contextlib.contextmanager
    def _locked(self, lock: sa.ColumnElement[Any]) -> Iterator[Connection]:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._database.begin())
            # What happens inside may take as long as a place takes to say that it is done.
            connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            connection.execute(sa.select(lock))
            yield connection
            try:
                stack.close()
            except DatabaseError as error:
                # Nothing was written here, and what happened inside has happened.
                log.warning("a fence was lost at its end: %s", error)


def _key(folder_id: str) -> int:
    digest = hashlib.blake2b(f"vfs folder {folder_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
