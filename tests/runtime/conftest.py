"""What the runtime's tests share: none leaves the logging of the process changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backupgw.runtime.database import connect, schema, sqlite_url
from tests.logging_kept import logging_kept
from tests.runtime.ledger_place import ledger_template, ledgers
from tests.servers.postgres import Postgres, postgres, postgres_programs, postgres_url

if TYPE_CHECKING:
    from tests.runtime.jobs_site import Site

__all__ = ["ledger_template", "ledgers", "postgres", "postgres_programs", "postgres_url"]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands configure the root logger; the next test must not inherit that."""
    with logging_kept():
        yield


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    """The URL of a database with tables, to be copied: quicker than migrating."""
    url = postgres.new_database()
    with connect(url) as database:
        schema.migrate(database)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database with tables, of each kind."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.new_database(request.getfixturevalue("migrated_template"))
    url = sqlite_url(tmp_path / "state.sqlite3")
    with connect(url) as database:
        schema.migrate(database)
    return url


@pytest.fixture
def site(state_url: str, tmp_path: Path) -> Iterator[Site]:
    """A database for jobs, of each kind."""
    # Late: other tests need no jobs.
    from tests.runtime.jobs_site import Site

    place = Site(state_url, tmp_path / "site")
    yield place
    place.close()
