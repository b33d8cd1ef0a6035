"""Uploads in the gateway's database: SQLite's, or a PostgreSQL that several gateways share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from backupgw.runtime.database import Connection, Database, clock
from backupgw.runtime.database.tables.vfs_uploads import vfs_uploads as table

from .records import Held, Kind, Piece, State, Upload, UploadBusy, UploadLost

_UNDER_WAY = (State.OPEN.value, State.ENDING.value)


class DatabaseUploads:
    """An `UploadStore`.

    Args:
        database: open; the caller closes it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, upload: Upload, lifetime: float) -> Upload:
        values = {
            **_values(upload),
            "id": upload.id,
            "folder": upload.folder,
            "owner": upload.owner,
            "kind": upload.kind.value,
            "metadata": upload.metadata,
            "overwrite": upload.overwrite,
            "parts": json.dumps(upload.parts),
            "created": clock(),
            "expires": clock() + lifetime,
            "epoch": 0,
            "held": False,
            "lease_until": 0.0,
            "wanted": False,
        }
        statement = table.insert().values(values).returning(*table.c)

        def work(connection: Connection) -> Upload:
            return _upload(connection.execute(statement).one())

        return self._database.run(work)

    def find(self, upload_id: str) -> Upload | None:
        with self._database.autocommit() as connection:
            row = connection.execute(sa.select(table).where(table.c.id == upload_id)).one_or_none()
        return None if row is None else _upload(row)

    def take(self, upload_id: str, lease: float, *, ending: bool) -> Held | None:
        this = sa.select(table, clock().label("now")).where(table.c.id == upload_id)

        def work(connection: Connection) -> Held | bool | None:
            row = connection.execute(this.with_for_update()).one_or_none()
            if row is None:
                return None
            if row.held and row.lease_until > row.now:
                if not row.wanted:
                    connection.execute(_one(upload_id).values(wanted=True))
                return True  # not raised here: that would undo it
            values: dict[str, Any] = {
                "epoch": row.epoch + 1,
                "held": True,
                "lease_until": row.now + lease,
                "wanted": False,
            }
            if ending and row.state == State.OPEN.value:
                values["state"] = State.ENDING.value
            connection.execute(_one(upload_id).values(values))
            # As it was found: who died while it was ending left it so.
            return Held(_upload(row), row.epoch + 1, died=row.held)

        held = self._database.run(work)
        if isinstance(held, bool):
            raise UploadBusy(upload_id)
        return held

    def renew(self, held: Held, lease: float) -> bool:
        statement = _mine(held).values(lease_until=clock() + lease).returning(table.c.wanted)

        def work(connection: Connection) -> bool | None:
            return connection.execute(statement).scalar_one_or_none()

        wanted = self._database.run(work, idempotent=True, deadline=lease / 3)
        if wanted is None:
            raise UploadLost(held.upload.id)
        return wanted

    def keep(self, held: Held, upload: Upload, lifetime: float, *, release: bool) -> Upload:
        values = {**_values(upload), "expires": clock() + lifetime}
        if release:
            values |= {"held": False, "wanted": False}
        statement = _mine(held).values(values).returning(*table.c)

        def work(connection: Connection) -> Upload | None:
            row = connection.execute(statement).one_or_none()
            return None if row is None else _upload(row)

        kept = self._database.run(work)
        if kept is None:
            raise UploadLost(upload.id)
        return kept

    def release(self, held: Held) -> None:
        values = {"held": False, "wanted": False, "state": held.upload.state.value}

        def work(connection: Connection) -> None:
            connection.execute(_mine(held).values(values))

        self._database.run(work, idempotent=True)

    def drop(self, held: Held) -> None:
        statement = table.delete().where(
            table.c.id == held.upload.id, table.c.epoch == held.epoch, table.c.held
        )

        def work(connection: Connection) -> None:
            connection.execute(statement)

        self._database.run(work, idempotent=True)

    def expired(self, most: int) -> Sequence[str]:
        free = sa.or_(sa.not_(table.c.held), table.c.lease_until < clock())
        statement = (
            sa.select(table.c.id)
            .where(table.c.expires < clock(), free)
            .order_by(table.c.expires)
            .limit(most)
        )
        with self._database.autocommit() as connection:
            return connection.execute(statement).scalars().all()

    def below(self, folder: str, path: str, most: int) -> Sequence[Upload]:
        conditions = [table.c.folder == folder, table.c.state.in_(_UNDER_WAY)]
        if path:
            # Not LIKE, which knows letters of its own.
            inside = sa.func.substr(table.c.name, 1, len(path) + 1) == f"{path}/"
            conditions.append(sa.or_(table.c.name == path, inside))
        statement = sa.select(table).where(*conditions).order_by(table.c.name).limit(most)
        with self._database.autocommit() as connection:
            rows = connection.execute(statement).all()
        return [_upload(row) for row in rows]


def _one(upload_id: str) -> sa.Update:
    return table.update().where(table.c.id == upload_id)


def _mine(held: Held) -> sa.Update:
    return _one(held.upload.id).where(table.c.epoch == held.epoch, table.c.held)


def _values(upload: Upload) -> dict[str, Any]:
    """What changes in the life of an upload."""
    return {
        "name": upload.name,
        "state": upload.state.value,
        "length": upload.length,
        "kept": upload.offset,
        "token": upload.token,
        "pieces": json.dumps(upload.pieces),
    }


def _upload(row: sa.Row[Any]) -> Upload:
    return Upload(
        id=row.id,
        folder=row.folder,
        owner=row.owner,
        name=row.name,
        length=row.length,
        kind=Kind(row.kind),
        state=State(row.state),
        offset=row.kept,
        metadata=row._mapping["metadata"],
        overwrite=row.overwrite,
        parts=tuple(json.loads(row.parts)),
        token=row.token,
        pieces=tuple(Piece(*piece) for piece in json.loads(row.pieces)),
        created=row.created,
        expires=row.expires,
    )
