"""The tables are there, whole and of the right version, or nothing starts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Table, inspect, text

from backupgw.runtime.database import (
    Database,
    DatabaseError,
    DatabaseSchemaError,
    connect,
    open_database,
    schema,
    sqlite_url,
)
from backupgw.runtime.database.tables.all import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables, of each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "state.sqlite3")
    url: str = request.getfixturevalue("postgres_url")
    return url


def migrated(url: str) -> Database:
    with connect(url) as database:
        schema.migrate(database)
    return open_database(url)


def test_the_revisions_make_what_the_metadata_says(empty_url: str) -> None:
    with migrated(empty_url) as database, database.engine.connect() as connection:

        def ours(item: object, name: str | None, kind: str, *_: object) -> bool:
            only = item.info.get("only") if isinstance(item, Table) else None
            return name != schema.VERSION_TABLE and only in (None, database.dialect)

        context = MigrationContext.configure(
            connection, opts={"include_object": ours, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []


def test_a_newer_database_is_left_alone(empty_url: str) -> None:
    with migrated(empty_url) as database, database.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version_num = '9999'"))
    needed = schema.needed_version()
    with pytest.raises(DatabaseSchemaError, match=rf"version 9999.*up to version {needed}"):
        open_database(empty_url)
    with connect(empty_url) as database, pytest.raises(DatabaseSchemaError, match="9999"):
        schema.migrate(database)


def test_postgresql_is_migrated_only_on_request(postgres_url: str) -> None:
    needed = schema.needed_version()
    with pytest.raises(DatabaseSchemaError, match=rf"no tables yet.*{needed}.*config migrate"):
        open_database(postgres_url)
    with connect(postgres_url) as database:
        planned = schema.migrate(database, dry_run=True)
        assert planned.found == 0
        assert [step.name for step in planned.steps][:1] == ["tokens"]
        with database.read() as connection:
            assert schema.found_version(connection) == 0, "a dry run changed something"
        schema.migrate(database)
        assert schema.migrate(database).steps == ()
        with database.begin() as connection:
            connection.execute(text("UPDATE schema_version SET version_num = '0001'"))
    with pytest.raises(DatabaseSchemaError, match=rf"version 1,.*{needed}.*config migrate"):
        open_database(postgres_url)


def test_several_migrations_at_once_are_one(empty_url: str) -> None:
    ready = threading.Barrier(4)

    def migrate(_: int) -> int:
        with connect(empty_url) as database:
            ready.wait(30)
            return len(schema.migrate(database).steps)

    with ThreadPoolExecutor(4) as threads:
        steps = sorted(threads.map(migrate, range(4)))
    assert steps == [0, 0, 0, len(schema.revisions())]


def test_a_migration_that_dies_midway_leaves_the_old_version(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated(empty_url).close()
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    for path in (schema.FOLDER / "versions").glob("*.py"):
        (folder / "versions" / path.name).write_text(path.read_text())
    (folder / "env.py").write_text((schema.FOLDER / "env.py").read_text())
    last, number = schema.needed_version(), schema.needed_version() + 1
    (folder / "versions" / f"{number:04}_bad.py").write_text(
        f"""from alembic import op
import sqlalchemy as sa
revision, down_revision = "{number:04}", "{last:04}"
def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("INSERT INTO half VALUES (1)")
    op.add_column("tokens", sa.Column("half", sa.Text))
    op.execute("INSERT INTO half VALUES (1)")
"""
    )
    monkeypatch.setattr(schema, "FOLDER", folder)
    schema.revisions.cache_clear()
    try:
        with connect(empty_url) as database:
            with pytest.raises(DatabaseError):
                schema.migrate(database)
            with database.read() as connection:
                assert schema.found_version(connection) == last
                assert not inspect(connection).has_table("half")
                names = {column["name"] for column in inspect(connection).get_columns("tokens")}
                assert "half" not in names
    finally:
        schema.revisions.cache_clear()
