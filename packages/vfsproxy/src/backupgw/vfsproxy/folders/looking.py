"""What every request asks first: the folder, who its client is, and what is shared with them.

The same answers as `catalogue` and `people` give, by statements that are prepared once.
"""

from __future__ import annotations

import sqlalchemy as sa

from backupgw.runtime.database import Database
from backupgw.runtime.database.brief import Brief, Prepared
from backupgw.runtime.database.tables.vfs import vfs_folders, vfs_members, vfs_shares, vfs_users

from .catalogue import folder_of
from .people import Standing
from .records import Folder, Kind, Permission, Status

_USER: sa.BindParameter[str] = sa.bindparam("user")
_FOLDER: sa.BindParameter[str] = sa.bindparam("folder")
_FIND = Prepared(sa.select(vfs_folders).where(vfs_folders.c.id == _FOLDER))
_FENCE = Prepared(
    sa.select(vfs_folders.c.status, vfs_folders.c.generation).where(vfs_folders.c.id == _FOLDER)
)
_STANDING = Prepared(
    sa.select(vfs_users.c.admin, vfs_users.c.disabled).where(vfs_users.c.name == _USER)
)
_GROUPS = Prepared(
    sa.select(vfs_members.c.group_name, vfs_members.c.admin).where(vfs_members.c.user_name == _USER)
)
_SHARED = Prepared(
    sa.select(vfs_shares.c.permission).where(
        vfs_shares.c.folder == _FOLDER,
        sa.or_(
            sa.and_(vfs_shares.c.kind == Kind.USER.value, vfs_shares.c.subject == _USER),
            sa.and_(
                vfs_shares.c.kind == Kind.GROUP.value,
                vfs_shares.c.subject.in_(
                    sa.select(vfs_members.c.group_name).where(vfs_members.c.user_name == _USER)
                ),
            ),
        ),
    )
)


def find(brief: Brief, folder_id: str) -> Folder | None:
    """As `catalogue.find`."""
    row = brief.one(_FIND, folder=folder_id)
    return None if row is None else folder_of(row)


def found(database: Database, folder_id: str) -> Folder | None:
    """As `find`, by itself."""
    row = database.look_up(_FIND, folder=folder_id)
    return None if row is None else folder_of(row)


def fence(database: Database, folder_id: str) -> tuple[Status, int] | None:
    """Return a folder's status and generation; None where there is none."""
    row = database.look_up(_FENCE, folder=folder_id)
    return None if row is None else (Status(row.status), row.generation)


def standing(brief: Brief, user: str) -> Standing:
    """As `people.standing`."""
    row = brief.one(_STANDING, user=user)
    groups = {name: bool(admin) for name, admin in brief.all(_GROUPS, user=user)}
    if row is None:
        return Standing(user, groups=groups)
    return Standing(user, bool(row.admin), bool(row.disabled), groups)


def shared_with(brief: Brief, folder_id: str, user: str) -> Permission | None:
    """As `catalogue.shared_with`, of the groups that the user is in."""
    found = [Permission(row.permission) for row in brief.all(_SHARED, folder=folder_id, user=user)]
    return max(found, key=lambda permission: permission.rank, default=None)
