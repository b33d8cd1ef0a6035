"""The rows of folders and shares: found, listed, added and changed, each in a transaction of the
caller's. What changes is noted, for those who remember it (`remembered`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from backupgw.runtime.database import Connection, changed, clock
from backupgw.runtime.database.tables.vfs import vfs_folders, vfs_members, vfs_shares

from .people import Standing
from .records import Folder, Holder, Kind, Limits, Permission, Share, Status


def note(folder_id: str) -> str:
    """Return as what a change of a folder, or of its shares, is noted."""
    return f"vfolder:{folder_id}"


def now(connection: Connection) -> float:
    """Return the database's time, seconds since 1970."""
    return float(connection.execute(sa.select(clock())).scalar_one())


def find(connection: Connection, folder_id: str, *, lock: bool = False) -> Folder | None:
    """Return a folder.

    Args:
        lock: nobody else changes its row until the transaction ends.
    """
    query = sa.select(vfs_folders).where(vfs_folders.c.id == folder_id)
    if lock:
        query = query.with_for_update()
    row = connection.execute(query).one_or_none()
    return None if row is None else folder_of(row)


def find_at(connection: Connection, volume: str, path: str) -> Folder | None:
    """Return the folder whose content lies at a path of a volume."""
    query = sa.select(vfs_folders).where(vfs_folders.c.volume == volume, vfs_folders.c.path == path)
    row = connection.execute(query).one_or_none()
    return None if row is None else folder_of(row)


def named(connection: Connection, holder: Holder, name: str) -> Folder | None:
    """Return somebody's folder of a name, unless it is deleted."""
    row = connection.execute(
        sa.select(vfs_folders).where(
            vfs_folders.c.kind == holder.kind.value,
            vfs_folders.c.owner == holder.name,
            vfs_folders.c.name == name,
            vfs_folders.c.deleted.is_(None),
        )
    ).one_or_none()
    return None if row is None else folder_of(row)


def deleted_of(connection: Connection, holder: Holder, name: str) -> list[Folder]:
    """Return somebody's folders that had a name and are deleted, the latest first."""
    rows = connection.execute(
        sa.select(vfs_folders)
        .where(
            vfs_folders.c.kind == holder.kind.value,
            vfs_folders.c.owner == holder.name,
            vfs_folders.c.name == name,
            vfs_folders.c.deleted.is_not(None),
        )
        .order_by(vfs_folders.c.deleted.desc())
    )
    return [folder_of(row) for row in rows]


def count(connection: Connection, holder: Holder) -> int:
    """Return how many folders somebody has, deleted ones included."""
    return connection.execute(
        sa.select(sa.func.count())
        .select_from(vfs_folders)
        .where(vfs_folders.c.kind == holder.kind.value, vfs_folders.c.owner == holder.name)
    ).scalar_one()


def limits_of(connection: Connection, holder: Holder) -> list[Limits]:
    """Return the limits of all folders that somebody has, deleted ones included."""
    rows = connection.execute(
        sa.select(vfs_folders.c.limit_bytes, vfs_folders.c.limit_files).where(
            vfs_folders.c.kind == holder.kind.value, vfs_folders.c.owner == holder.name
        )
    )
    return [Limits(row.limit_bytes, row.limit_files) for row in rows]


def add(connection: Connection, folder: Folder) -> None:
    """Add a folder. Raises DatabaseConflict where its owner has one of that name."""
    connection.execute(vfs_folders.insert().values(**_values(folder)))


def change(connection: Connection, folder_id: str, **values: Any) -> bool:
    """Change columns of a folder; return whether there is one."""
    changed(connection, note(folder_id))
    values = {key: getattr(value, "value", value) for key, value in values.items()}
    where = vfs_folders.c.id == folder_id
    statement = vfs_folders.update().where(where).values(changed=clock(), **values)
    return connection.execute(statement).rowcount > 0


def remove(connection: Connection, folder_id: str) -> bool:
    """Forget a folder, with its shares and snapshots; return whether there was one."""
    changed(connection, note(folder_id))
    where = vfs_folders.c.id == folder_id
    return connection.execute(vfs_folders.delete().where(where)).rowcount > 0


def visible(
    connection: Connection,
    standing: Standing | None,
    *,
    after: str = "",
    limit: int = 100,
    holder: Holder | None = None,
    volume: str | None = None,
    name: str | None = None,
    statuses: Sequence[Status] = (),
) -> list[Folder]:
    """Return folders in the order of their ids.

    Args:
        standing: only those that this user may see; None: all.
        after: the id of the last one of the page before.
        holder, volume, name: only theirs, only there, only those with this in their name.
        statuses: only these.
    """
    query = sa.select(vfs_folders).where(vfs_folders.c.id > after)
    if standing is not None:
        query = query.where(_seen_by(standing.user))
    if holder is not None:
        query = query.where(
            vfs_folders.c.kind == holder.kind.value, vfs_folders.c.owner == holder.name
        )
    if volume is not None:
        query = query.where(vfs_folders.c.volume == volume)
    if name is not None:
        query = query.where(vfs_folders.c.name.contains(name, autoescape=True))
    if statuses:
        query = query.where(vfs_folders.c.status.in_([status.value for status in statuses]))
    rows = connection.execute(query.order_by(vfs_folders.c.id).limit(limit))
    return [folder_of(row) for row in rows]


def _seen_by(user: str) -> sa.ColumnElement[bool]:
    mine = sa.select(vfs_members.c.group_name).where(vfs_members.c.user_name == user)
    shared = sa.select(vfs_shares.c.folder).where(
        sa.or_(
            sa.and_(vfs_shares.c.kind == Kind.USER.value, vfs_shares.c.subject == user),
            sa.and_(vfs_shares.c.kind == Kind.GROUP.value, vfs_shares.c.subject.in_(mine)),
        )
    )
    return sa.or_(
        sa.and_(vfs_folders.c.kind == Kind.USER.value, vfs_folders.c.owner == user),
        sa.and_(vfs_folders.c.kind == Kind.GROUP.value, vfs_folders.c.owner.in_(mine)),
        vfs_folders.c.id.in_(shared),
    )


def of_volume(connection: Connection, volume: str) -> Iterator[Folder]:
    """Yield all folders of a volume, whatever their status."""
    query = sa.select(vfs_folders).where(vfs_folders.c.volume == volume)
    for row in connection.execute(query, execution_options={"yield_per": 500}):
        yield folder_of(row)


def everything(connection: Connection) -> Iterator[Folder]:
    """Yield all folders there are."""
    for row in connection.execute(sa.select(vfs_folders), execution_options={"yield_per": 500}):
        yield folder_of(row)


# -- shares


def shares(connection: Connection, folder_id: str) -> list[Share]:
    """Return with whom a folder is shared."""
    rows = connection.execute(
        sa.select(vfs_shares)
        .where(vfs_shares.c.folder == folder_id)
        .order_by(vfs_shares.c.kind, vfs_shares.c.subject)
    )
    return [
        Share(
            row.folder,
            Holder(Kind(row.kind), row.subject),
            Permission(row.permission),
            row.created,
            row.creator,
        )
        for row in rows
    ]


def shared_with(connection: Connection, folder_id: str, standing: Standing) -> Permission | None:
    """Return the most that a folder is shared with a user by; None where it is not."""
    query = sa.select(vfs_shares.c.permission).where(
        vfs_shares.c.folder == folder_id,
        sa.or_(
            sa.and_(vfs_shares.c.kind == Kind.USER.value, vfs_shares.c.subject == standing.user),
            sa.and_(
                vfs_shares.c.kind == Kind.GROUP.value,
                vfs_shares.c.subject.in_(sorted(standing.groups)),
            ),
        ),
    )
    found = [Permission(value) for value in connection.execute(query).scalars()]
    return max(found, key=lambda permission: permission.rank, default=None)


def given_by(connection: Connection, subject: Holder, creator: str) -> dict[str, Permission]:
    """Return what somebody has shared with a user or group, by folder."""
    rows = connection.execute(
        sa.select(vfs_shares.c.folder, vfs_shares.c.permission).where(
            vfs_shares.c.kind == subject.kind.value,
            vfs_shares.c.subject == subject.name,
            vfs_shares.c.creator == creator,
        )
    )
    return {folder: Permission(permission) for folder, permission in rows}


def share(connection: Connection, given: Share) -> None:
    """Share a folder, or change by how much it is shared."""
    changed(connection, note(given.folder))
    where = _share(given.folder, given.subject)
    values = {"permission": given.permission.value}
    if not connection.execute(vfs_shares.update().where(where).values(**values)).rowcount:
        connection.execute(
            vfs_shares.insert().values(
                folder=given.folder,
                kind=given.subject.kind.value,
                subject=given.subject.name,
                permission=given.permission.value,
                created=given.created,
                creator=given.creator,
            )
        )


def unshare(connection: Connection, folder_id: str, subject: Holder) -> bool:
    """End a share; return whether there was one."""
    changed(connection, note(folder_id))
    return connection.execute(vfs_shares.delete().where(_share(folder_id, subject))).rowcount > 0


def _share(folder_id: str, subject: Holder) -> sa.ColumnElement[bool]:
    return sa.and_(
        vfs_shares.c.folder == folder_id,
        vfs_shares.c.kind == subject.kind.value,
        vfs_shares.c.subject == subject.name,
    )


# -- rows


def folder_of(row: sa.Row[Any]) -> Folder:
    """Return a row as a record."""
    return Folder(
        id=row.id,
        name=row.name,
        holder=Holder(Kind(row.kind), row.owner),
        volume=row.volume,
        path=row.path,
        status=Status(row.status),
        generation=row.generation,
        group_permission=Permission(row.group_permission),
        mode=row.mode,
        limits=Limits(row.limit_bytes, row.limit_files),
        creator=row.creator,
        created=row.created,
        changed=row.changed,
        deleted=row.deleted,
        expires=row.expires,
        source=row.source,
        job=row.job,
        reason=row.reason,
    )


def _values(folder: Folder) -> dict[str, Any]:
    return {
        "id": folder.id,
        "name": folder.name,
        "kind": folder.holder.kind.value,
        "owner": folder.holder.name,
        "volume": folder.volume,
        "path": folder.path,
        "status": folder.status.value,
        "generation": folder.generation,
        "group_permission": folder.group_permission.value,
        "mode": folder.mode,
        "limit_bytes": folder.limits.bytes,
        "limit_files": folder.limits.files,
        "creator": folder.creator,
        "created": folder.created,
        "changed": folder.changed,
        "deleted": folder.deleted,
        "expires": folder.expires,
        "source": folder.source,
        "job": folder.job,
        "reason": folder.reason,
    }
