"""Virtual folders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "vfs_users",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("admin", sa.Boolean, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("limit_bytes", sa.BigInteger),
        sa.Column("limit_files", sa.BigInteger),
        sa.Column("limits_set", sa.Boolean, nullable=False, comment="else the settings' default"),
        sa.Column("created", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="vfs_users_pkey"),
    )
    op.create_table(
        "vfs_groups",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("limit_bytes", sa.BigInteger),
        sa.Column("limit_files", sa.BigInteger),
        sa.Column("limits_set", sa.Boolean, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="vfs_groups_pkey"),
    )
    op.create_table(
        "vfs_members",
        sa.Column("group_name", sa.Text, nullable=False),
        sa.Column("user_name", sa.Text, nullable=False),
        sa.Column("admin", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(
            ["group_name"],
            ["vfs_groups.name"],
            name="vfs_members_group_name_fkey",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("group_name", "user_name", name="vfs_members_pkey"),
    )
    op.create_index("vfs_members_user_name", "vfs_members", ["user_name"])
    _folders()
    _beside_folders()
    op.create_table(
        "vfs_audit",
        sa.Column("number", _NUMBER, nullable=False, autoincrement=True),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("via", sa.Text, nullable=False, comment="token, manager, command, job"),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("folder", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("details", sa.Text, nullable=False, comment="JSON"),
        sa.PrimaryKeyConstraint("number", name="vfs_audit_pkey"),
        sqlite_autoincrement=True,
    )
    op.create_index("vfs_audit_folder", "vfs_audit", ["folder", "number"])
    op.create_table(
        "vfs_keys",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="vfs_keys_pkey"),
    )


def _folders() -> None:
    op.create_table(
        "vfs_folders",
        sa.Column("id", sa.Text, nullable=False),
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
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("changed", sa.Double, nullable=False),
        sa.Column("deleted", sa.Double),
        sa.Column("expires", sa.Double),
        sa.Column("source", sa.Text, comment="the folder that it is being made from"),
        sa.Column("job", sa.Text, comment="that works on it"),
        sa.Column("reason", sa.Text, comment="why its status is an error"),
        sa.PrimaryKeyConstraint("id", name="vfs_folders_pkey"),
        sa.UniqueConstraint("volume", "path", name="vfs_folders_volume_path_key"),
    )
    op.create_index("vfs_folders_listed", "vfs_folders", ["kind", "owner", "id"])
    op.create_index("vfs_folders_status", "vfs_folders", ["status", "deleted"])
    op.create_index("vfs_folders_expires", "vfs_folders", ["expires"])
    op.create_index(
        "vfs_folders_name",
        "vfs_folders",
        ["kind", "owner", "name"],
        unique=True,
        sqlite_where=sa.text("deleted IS NULL"),
        postgresql_where=sa.text("deleted IS NULL"),
    )


def _beside_folders() -> None:
    op.create_table(
        "vfs_shares",
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="with whom: user or group"),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("permission", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["folder"], ["vfs_folders.id"], name="vfs_shares_folder_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("folder", "kind", "subject", name="vfs_shares_pkey"),
    )
    op.create_index("vfs_shares_subject", "vfs_shares", ["kind", "subject"])
    op.create_table(
        "vfs_snapshots",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("method", sa.Text, comment="native, reflink or copy"),
        sa.Column("files", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("job", sa.Text),
        sa.ForeignKeyConstraint(
            ["folder"], ["vfs_folders.id"], name="vfs_snapshots_folder_fkey", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="vfs_snapshots_pkey"),
        sa.UniqueConstraint("folder", "name", name="vfs_snapshots_folder_name_key"),
    )
    op.create_index("vfs_snapshots_expires", "vfs_snapshots", ["expires"])
