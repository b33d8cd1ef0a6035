"""Uploads to virtual folders that are under way, or ended lately. Times are seconds since 1970."""

from __future__ import annotations

import sqlalchemy as sa

from . import metadata

vfs_uploads = sa.Table(
    "vfs_uploads",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    # Bytes; NULL where the client has not said how many there will be.
    sa.Column("length", sa.BigInteger),
    # Not "offset", which is a word of SQL.
    sa.Column("kept", sa.BigInteger, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("overwrite", sa.Boolean, nullable=False),
    # JSON: ids of partial uploads; names and sizes of items in the staging area.
    sa.Column("parts", sa.Text, nullable=False),
    sa.Column("token", sa.Text),
    sa.Column("pieces", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("expires", sa.Double, nullable=False),
    # Who may write: grows whenever a request takes the upload.
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("lease_until", sa.Double, nullable=False),
    # Another request waits for it.
    sa.Column("wanted", sa.Boolean, nullable=False),
)

sa.Index("vfs_uploads_folder", vfs_uploads.c.folder, vfs_uploads.c.name)
sa.Index("vfs_uploads_expires", vfs_uploads.c.expires)
