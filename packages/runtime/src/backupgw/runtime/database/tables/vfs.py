"""Virtual folders: who there is, folders, who they are shared with, snapshots, and what was done.

Times are seconds since 1970. What a folder or an owner uses is the ledger's to know; here is what
it may use, so that a ledger that was lost gets its limits back.
"""

from __future__ import annotations

import sqlalchemy as sa

from . import metadata

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME: sa.Double[float] = sa.Double()

vfs_users = sa.Table(
    "vfs_users",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("admin", sa.Boolean, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("limit_bytes", sa.BigInteger),
    sa.Column("limit_files", sa.BigInteger),
    sa.Column("limits_set", sa.Boolean, nullable=False, comment="else the settings' default"),
    sa.Column("created", _TIME, nullable=False),
)

vfs_groups = sa.Table(
    "vfs_groups",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("limit_bytes", sa.BigInteger),
    sa.Column("limit_files", sa.BigInteger),
    sa.Column("limits_set", sa.Boolean, nullable=False),
    sa.Column("created", _TIME, nullable=False),
)

vfs_members = sa.Table(
    "vfs_members",
    metadata,
    sa.Column(
        "group_name",
        sa.Text,
        sa.ForeignKey("vfs_groups.name", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("user_name", sa.Text, primary_key=True),
    sa.Column("admin", sa.Boolean, nullable=False),
    sa.Index("vfs_members_user_name", "user_name"),
)

vfs_folders = sa.Table(
    "vfs_folders",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False, comment="whose it is: user or group"),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("volume", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False, comment="of its content in the volume"),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False, comment="grows with owner and end"),
    sa.Column("group_permission", sa.Text, nullable=False, comment="of its group's members"),
    sa.Column("mode", sa.Integer),
    sa.Column("limit_bytes", sa.BigInteger),
    sa.Column("limit_files", sa.BigInteger),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("created", _TIME, nullable=False),
    sa.Column("changed", _TIME, nullable=False),
    sa.Column("deleted", _TIME),
    sa.Column("expires", _TIME),
    sa.Column("source", sa.Text, comment="the folder that it is being made from"),
    sa.Column("job", sa.Text, comment="that works on it"),
    sa.Column("reason", sa.Text, comment="why its status is an error"),
    sa.UniqueConstraint("volume", "path"),
    sa.Index("vfs_folders_listed", "kind", "owner", "id"),
    sa.Index("vfs_folders_status", "status", "deleted"),
    sa.Index("vfs_folders_expires", "expires"),
)

sa.Index(
    "vfs_folders_name",
    vfs_folders.c.kind,
    vfs_folders.c.owner,
    vfs_folders.c.name,
    unique=True,
    sqlite_where=sa.text("deleted IS NULL"),
    postgresql_where=sa.text("deleted IS NULL"),
)

vfs_shares = sa.Table(
    "vfs_shares",
    metadata,
    sa.Column(
        "folder", sa.Text, sa.ForeignKey("vfs_folders.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("kind", sa.Text, primary_key=True, comment="with whom: user or group"),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("permission", sa.Text, nullable=False),
    sa.Column("created", _TIME, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Index("vfs_shares_subject", "kind", "subject"),
)

vfs_snapshots = sa.Table(
    "vfs_snapshots",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column(
        "folder", sa.Text, sa.ForeignKey("vfs_folders.id", ondelete="CASCADE"), nullable=False
    ),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("method", sa.Text, comment="native, reflink or copy"),
    sa.Column("files", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created", _TIME, nullable=False),
    sa.Column("expires", _TIME),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("job", sa.Text),
    sa.UniqueConstraint("folder", "name"),
    sa.Index("vfs_snapshots_expires", "expires"),
)

vfs_audit = sa.Table(
    "vfs_audit",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("time", _TIME, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("via", sa.Text, nullable=False, comment="token, manager, command, job"),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("folder", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("details", sa.Text, nullable=False, comment="JSON"),
    sa.Index("vfs_audit_folder", "folder", "number"),
    sqlite_autoincrement=True,
)

vfs_keys = sa.Table(
    "vfs_keys",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("created", _TIME, nullable=False),
    # A key signs what is good for minutes: another state makes another.
    info={"exported": False},
)
