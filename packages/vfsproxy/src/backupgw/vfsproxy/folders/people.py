"""Users and groups: who there is, who belongs to what, and what they may hold.

A user is whoever has a good token: an entry here is made when a user first gets a folder, or when
an operator says something of them. What changes is noted, for those who remember it
(`remembered`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa

from backupgw.runtime.database import Connection, changed, clock, insert_new
from backupgw.runtime.database.tables.vfs import (
    vfs_folders,
    vfs_groups,
    vfs_members,
    vfs_shares,
    vfs_users,
)

from .records import Holder, Kind, Limits


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user is at this moment.

    Attributes:
        groups: those the user belongs to, each with whether as its administrator.
    """

    user: str
    admin: bool = False
    disabled: bool = False
    groups: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class User:
    """An entry. `limits` is None where the settings' default holds."""

    name: str
    admin: bool
    disabled: bool
    limits: Limits | None
    created: float


@dataclass(frozen=True, slots=True)
class Group:
    """An entry. `members` tells of each member whether it is an administrator."""

    name: str
    limits: Limits | None
    created: float
    members: dict[str, bool] = field(default_factory=dict)


def note(user: str) -> str:
    """Return as what a change of what a user is, is noted."""
    return f"user:{user}"


def standing(connection: Connection, user: str) -> Standing:
    """Return what is known of a user; of a stranger, nothing."""
    row = connection.execute(
        sa.select(vfs_users.c.admin, vfs_users.c.disabled).where(vfs_users.c.name == user)
    ).one_or_none()
    groups = connection.execute(
        sa.select(vfs_members.c.group_name, vfs_members.c.admin).where(
            vfs_members.c.user_name == user
        )
    )
    found = {name: bool(admin) for name, admin in groups}
    if row is None:
        return Standing(user, groups=found)
    return Standing(user, bool(row.admin), bool(row.disabled), found)


def find_user(connection: Connection, name: str) -> User | None:
    """Return a user's entry."""
    row = connection.execute(sa.select(vfs_users).where(vfs_users.c.name == name)).one_or_none()
    return None if row is None else _user(row)


def users(connection: Connection, after: str, limit: int) -> list[User]:
    """Return entries in the order of their names."""
    query = sa.select(vfs_users).where(vfs_users.c.name > after)
    return [_user(row) for row in connection.execute(query.order_by(vfs_users.c.name).limit(limit))]


def ensure_user(connection: Connection, name: str) -> None:
    """Make an entry unless there is one."""
    insert_new(
        connection,
        vfs_users,
        {
            "name": name,
            "admin": False,
            "disabled": False,
            "limits_set": False,
            "created": _now(connection),
        },
    )


def change_user(
    connection: Connection,
    name: str,
    *,
    admin: bool | None = None,
    disabled: bool | None = None,
) -> None:
    """Change what is not None; the entry is made where it is missing."""
    ensure_user(connection, name)
    changed(connection, note(name))
    given = {"admin": admin, "disabled": disabled}
    values = {key: value for key, value in given.items() if value is not None}
    if values:
        connection.execute(vfs_users.update().where(vfs_users.c.name == name).values(**values))


def make_group(connection: Connection, name: str) -> bool:
    """Make a group; return whether there was none."""
    return insert_new(
        connection,
        vfs_groups,
        {"name": name, "limits_set": False, "created": _now(connection)},
    )


def find_group(connection: Connection, name: str) -> Group | None:
    """Return a group with its members."""
    row = connection.execute(sa.select(vfs_groups).where(vfs_groups.c.name == name)).one_or_none()
    if row is None:
        return None
    members = connection.execute(
        sa.select(vfs_members.c.user_name, vfs_members.c.admin)
        .where(vfs_members.c.group_name == name)
        .order_by(vfs_members.c.user_name)
    )
    return Group(row.name, _limits(row), row.created, {user: bool(adm) for user, adm in members})


def groups(connection: Connection, after: str, limit: int, user: str | None) -> list[Group]:
    """Return groups in the order of their names, without members; of a user only, if one is."""
    query = sa.select(vfs_groups).where(vfs_groups.c.name > after)
    if user is not None:
        mine = sa.select(vfs_members.c.group_name).where(vfs_members.c.user_name == user)
        query = query.where(vfs_groups.c.name.in_(mine))
    rows = connection.execute(query.order_by(vfs_groups.c.name).limit(limit))
    return [Group(row.name, _limits(row), row.created) for row in rows]


def set_member(connection: Connection, group: str, user: str, *, admin: bool) -> None:
    """Make a user a member, or change what kind of member."""
    ensure_user(connection, user)
    changed(connection, note(user))
    where = sa.and_(vfs_members.c.group_name == group, vfs_members.c.user_name == user)
    if not connection.execute(vfs_members.update().where(where).values(admin=admin)).rowcount:
        insert_new(
            connection, vfs_members, {"group_name": group, "user_name": user, "admin": admin}
        )


def remove_member(connection: Connection, group: str, user: str) -> bool:
    """End a membership; return whether there was one."""
    changed(connection, note(user))
    where = sa.and_(vfs_members.c.group_name == group, vfs_members.c.user_name == user)
    return connection.execute(vfs_members.delete().where(where)).rowcount > 0


def has_folders(connection: Connection, holder: Holder) -> bool:
    """Whether any folder belongs to somebody, deleted ones included."""
    query = sa.select(vfs_folders.c.id).where(
        vfs_folders.c.kind == holder.kind.value, vfs_folders.c.owner == holder.name
    )
    return connection.execute(query.limit(1)).one_or_none() is not None


def remove(connection: Connection, holder: Holder) -> bool:
    """Remove the entry of somebody who has no folders; return whether there was one."""
    table = vfs_users if holder.kind is Kind.USER else vfs_groups
    if holder.kind is Kind.USER:
        changed(connection, note(holder.name))
        connection.execute(vfs_members.delete().where(vfs_members.c.user_name == holder.name))
    else:
        members = sa.select(vfs_members.c.user_name).where(vfs_members.c.group_name == holder.name)
        changed(connection, *map(note, connection.execute(members).scalars()))
    shared = sa.and_(vfs_shares.c.kind == holder.kind.value, vfs_shares.c.subject == holder.name)
    folders = connection.execute(sa.select(vfs_shares.c.folder).where(shared)).scalars()
    changed(connection, *(f"vfolder:{folder}" for folder in folders))
    connection.execute(vfs_shares.delete().where(shared))
    return connection.execute(table.delete().where(table.c.name == holder.name)).rowcount > 0


def set_limits(connection: Connection, holder: Holder, limits: Limits | None) -> bool:
    """Set somebody's limits, None for the settings' default; return whether there is an entry."""
    table = vfs_users if holder.kind is Kind.USER else vfs_groups
    values = {
        "limits_set": limits is not None,
        "limit_bytes": None if limits is None else limits.bytes,
        "limit_files": None if limits is None else limits.files,
    }
    where = table.c.name == holder.name
    return connection.execute(table.update().where(where).values(**values)).rowcount > 0


def limits_of(connection: Connection, holder: Holder) -> Limits | None:
    """Return somebody's own limits, None where the settings' default holds."""
    table = vfs_users if holder.kind is Kind.USER else vfs_groups
    row = connection.execute(sa.select(table).where(table.c.name == holder.name)).one_or_none()
    return None if row is None else _limits(row)


def all_limits(connection: Connection) -> Iterator[tuple[Holder, Limits | None]]:
    """Yield everybody with their own limits."""
    for kind, table in ((Kind.USER, vfs_users), (Kind.GROUP, vfs_groups)):
        for row in connection.execute(sa.select(table)):
            yield Holder(kind, row.name), _limits(row)


def _now(connection: Connection) -> float:
    return float(connection.execute(sa.select(clock())).scalar_one())


def _limits(row: sa.Row[tuple[object, ...]]) -> Limits | None:
    columns = row._mapping
    if not columns["limits_set"]:
        return None
    return Limits(columns["limit_bytes"], columns["limit_files"])


def _user(row: sa.Row[tuple[object, ...]]) -> User:
    columns = row._mapping
    return User(
        columns["name"],
        bool(columns["admin"]),
        bool(columns["disabled"]),
        _limits(row),
        columns["created"],
    )
