"""Uploads in the gateway's database: SQLite's, or a PostgreSQL that several gateways share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from backupgw.runtime.database import Database, clock
from backupgw.runtime.database.brief import Brief, Prepared
from backupgw.runtime.database.tables.vfs_uploads import vfs_uploads as table

from .records import Held, Kind, Piece, State, Upload, UploadBusy, UploadLost

_UNDER_WAY = (State.OPEN.value, State.ENDING.value)


def _bound(*names: str) -> dict[str, sa.BindParameter[Any]]:
    """Return parameters for columns of these names, as statements call them: `new_state`."""
    return {name: sa.bindparam(f"new_{name}") for name in names}


_LIFETIME: sa.BindParameter[float] = sa.bindparam("lifetime")
_LEASE: sa.BindParameter[float] = sa.bindparam("lease")
_CHANGING = ("name", "state", "length", "kept", "token", "pieces")
"""What changes in the life of an upload."""
_FOR_GOOD = ("id", "folder", "owner", "kind", "metadata", "overwrite", "parts")

_THIS = table.c.id == sa.bindparam("upload")
_MINE = sa.and_(_THIS, table.c.epoch == sa.bindparam("mine"), table.c.held)

_NEW = {
    **_bound(*_CHANGING, *_FOR_GOOD),
    "created": clock(),
    "expires": clock() + _LIFETIME,
    "epoch": 0,
    "held": False,
    "lease_until": 0.0,
    "wanted": False,
}
_ADD = Prepared(
    sqlite.insert(table).values(**_NEW).on_conflict_do_nothing().returning(*table.c),
    postgresql=postgresql.insert(table).values(**_NEW).on_conflict_do_nothing().returning(*table.c),
)
_FIND = Prepared(sa.select(table).where(_THIS))
_LOOK = Prepared(sa.select(table, clock().label("now")).where(_THIS).with_for_update())
_WANT = Prepared(table.update().where(_THIS).values(wanted=True))
_TAKE = Prepared(
    table.update()
    .where(_THIS)
    .values(held=True, wanted=False, **_bound("epoch", "lease_until", "state"))
)
_RENEW = Prepared(
    table.update().where(_MINE).values(lease_until=clock() + _LEASE).returning(table.c.wanted)
)
_KEEP = Prepared(
    table.update()
    .where(_MINE)
    .values(**_bound(*_CHANGING), expires=clock() + _LIFETIME)
    .returning(*table.c)
)
_KEEP_AND_LET_GO = Prepared(
    table.update()
    .where(_MINE)
    .values(**_bound(*_CHANGING), expires=clock() + _LIFETIME, held=False, wanted=False)
    .returning(*table.c)
)
_RELEASE = Prepared(table.update().where(_MINE).values(held=False, wanted=False, **_bound("state")))
_DROP = Prepared(table.delete().where(_MINE))


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
            "new_id": upload.id,
            "new_folder": upload.folder,
            "new_owner": upload.owner,
            "new_kind": upload.kind.value,
            "new_metadata": upload.metadata,
            "new_overwrite": upload.overwrite,
            "new_parts": json.dumps(upload.parts),
            "lifetime": lifetime,
        }

        def work(brief: Brief) -> Any:
            return brief.one(_ADD, **values) or brief.one(_FIND, upload=upload.id)

        # A file tells of itself, and of what nothing is kept of there is nothing to tell.
        durable = upload.offset > 0 and (upload.state is State.OPEN or upload.kind is Kind.PARTIAL)
        return _upload(self._database.run_brief(work, idempotent=True, durable=durable))

    def find(self, upload_id: str) -> Upload | None:
        row = self._database.look_up(_FIND, upload=upload_id)
        return None if row is None else _upload(row)

    def take(self, upload_id: str, lease: float, *, ending: bool) -> Held | None:
        def work(brief: Brief) -> Held | bool | None:
            row = brief.one(_LOOK, upload=upload_id)
            if row is None:
                return None
            if row.held and row.lease_until > row.now:
                if not row.wanted:
                    brief.change(_WANT, upload=upload_id)
                return True  # not raised here: that would undo it
            ends = row.state == State.ENDING.value or (ending and row.state == State.OPEN.value)
            brief.change(
                _TAKE,
                upload=upload_id,
                new_epoch=row.epoch + 1,
                new_lease_until=row.now + lease,
                new_state=State.ENDING.value if ends else row.state,
            )
            # As it was found: who died while it was ending left it so.
            return Held(_upload(row), row.epoch + 1, died=bool(row.held), ending=ends)

        held = self._database.run_brief(work)
        if isinstance(held, bool):
            raise UploadBusy(upload_id)
        return held

    def renew(self, held: Held, lease: float) -> bool:
        found = self._database.run_brief(
            lambda brief: brief.one(_RENEW, **_mine(held), lease=lease),
            idempotent=True,
            deadline=lease / 3,
        )
        if found is None:
            raise UploadLost(held.upload.id)
        return bool(found.wanted)

    def keep(self, held: Held, upload: Upload, lifetime: float, *, release: bool) -> Upload:
        statement = _KEEP_AND_LET_GO if release else _KEEP
        values = {**_mine(held), **_values(upload), "lifetime": lifetime}
        # Of what was known to be ending the file itself tells, should this be forgotten.
        durable = upload.state is not State.DONE or not held.ending
        row = self._database.run_brief(
            lambda brief: brief.one(statement, **values), durable=durable
        )
        if row is None:
            raise UploadLost(upload.id)
        return _upload(row)

    def release(self, held: Held) -> None:
        state = held.upload.state.value
        self._database.run_brief(
            lambda brief: brief.change(_RELEASE, **_mine(held), new_state=state), idempotent=True
        )

    def drop(self, held: Held) -> None:
        self._database.run_brief(lambda brief: brief.change(_DROP, **_mine(held)), idempotent=True)

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
        return [_upload(_FIND.row._make(row)) for row in rows]


def _mine(held: Held) -> dict[str, Any]:
    return {"upload": held.upload.id, "mine": held.epoch}


def _values(upload: Upload) -> dict[str, Any]:
    return {
        "new_name": upload.name,
        "new_state": upload.state.value,
        "new_length": upload.length,
        "new_kept": upload.offset,
        "new_token": upload.token,
        "new_pieces": json.dumps(upload.pieces),
    }


def _upload(row: Any) -> Upload:
    return Upload(
        id=row.id,
        folder=row.folder,
        owner=row.owner,
        name=row.name,
        length=row.length,
        kind=Kind(row.kind),
        state=State(row.state),
        offset=row.kept,
        metadata=row.metadata,
        overwrite=bool(row.overwrite),
        parts=tuple(json.loads(row.parts)),
        token=row.token,
        pieces=tuple(Piece(*piece) for piece in json.loads(row.pieces)),
        created=row.created,
        expires=row.expires,
    )
