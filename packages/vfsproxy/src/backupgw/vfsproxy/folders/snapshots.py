"""The rows of snapshots."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from backupgw.runtime.database import Connection
from backupgw.runtime.database.tables.vfs import vfs_snapshots

from .records import Folder


class SnapshotStatus(enum.StrEnum):
    """Where a snapshot stands."""

    MAKING = "making"
    READY = "ready"
    DELETING = "deleting"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a folder held at a moment.

    Attributes:
        method: native where the storage made it, reflink where the gateway did and the disk shares
            what is the same, else copy; None before.
    """

    id: str
    folder: str
    name: str
    status: SnapshotStatus
    method: str | None
    files: int
    bytes: int
    created: float
    expires: float | None
    creator: str
    job: str | None

    def path(self, folder: Folder) -> str:
        """Return where in the volume it lies, where the gateway made it."""
        return f"{folder.snapshots}/{self.id}"


def find(connection: Connection, folder_id: str, snapshot: str) -> Snapshot | None:
    """Return a snapshot of a folder."""
    row = connection.execute(
        sa.select(vfs_snapshots).where(
            vfs_snapshots.c.folder == folder_id, vfs_snapshots.c.id == snapshot
        )
    ).one_or_none()
    return None if row is None else _snapshot(row)


def of_folder(connection: Connection, folder_id: str, after: str, limit: int) -> list[Snapshot]:
    """Return snapshots of a folder, in the order of their ids."""
    rows = connection.execute(
        sa.select(vfs_snapshots)
        .where(vfs_snapshots.c.folder == folder_id, vfs_snapshots.c.id > after)
        .order_by(vfs_snapshots.c.id)
        .limit(limit)
    )
    return [_snapshot(row) for row in rows]


def add(connection: Connection, snapshot: Snapshot) -> None:
    """Add a snapshot. Raises DatabaseConflict where the folder has one of that name."""
    connection.execute(
        vfs_snapshots.insert().values(
            id=snapshot.id,
            folder=snapshot.folder,
            name=snapshot.name,
            status=snapshot.status.value,
            method=snapshot.method,
            files=snapshot.files,
            bytes=snapshot.bytes,
            created=snapshot.created,
            expires=snapshot.expires,
            creator=snapshot.creator,
            job=snapshot.job,
        )
    )


def change(connection: Connection, snapshot: str, **values: Any) -> None:
    """Change columns of a snapshot."""
    values = {key: getattr(value, "value", value) for key, value in values.items()}
    where = vfs_snapshots.c.id == snapshot
    connection.execute(vfs_snapshots.update().where(where).values(**values))


def remove(connection: Connection, snapshot: str) -> None:
    """Forget a snapshot."""
    connection.execute(vfs_snapshots.delete().where(vfs_snapshots.c.id == snapshot))


def _snapshot(row: sa.Row[Any]) -> Snapshot:
    return Snapshot(
        row.id,
        row.folder,
        row.name,
        SnapshotStatus(row.status),
        row.method,
        row.files,
        row.bytes,
        row.created,
        row.expires,
        row.creator,
        row.job,
    )
