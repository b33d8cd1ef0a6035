"""A ledger in PostgreSQL for tests: fresh databases, and leases that run out when told to."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from backupgw.runtime.database import Database, connect, open_database, schema
from backupgw.runtime.ledger import PostgresLedger
from tests.servers.postgres import Postgres

_TEMPLATE = "ledger_template"


@pytest.fixture(scope="session")
def ledger_template(postgres: Postgres) -> str:
    """The name of a database with all tables, to be copied."""
    postgres.execute(f"CREATE DATABASE {_TEMPLATE}")
    with connect(postgres.url(_TEMPLATE)) as database:
        schema.migrate(database)
    return _TEMPLATE


def migrated(server: Postgres) -> str:
    """Return the URL of a fresh database with all tables on a server of one's own."""
    url = server.new_database()
    with connect(url) as database:
        schema.migrate(database)
    return url


class Ledgers:
    """Makes ledgers, each name with a database of its own."""

    def __init__(self, server: Postgres, template: str) -> None:
        self._server = server
        self._template = template
        self._urls: dict[str, str] = {}
        self._stack = ExitStack()

    def url(self, name: str = "ledger") -> str:
        if name not in self._urls:
            fresh = f"ledger_{uuid.uuid4().hex[:12]}"
            self._server.execute(f"CREATE DATABASE {fresh} TEMPLATE {self._template}")
            self._urls[name] = self._server.url(fresh)
        return self._urls[name]

    def database(self, name: str = "ledger") -> Database:
        return self._stack.enter_context(open_database(self.url(name)))

    def __call__(self, name: str = "ledger", **options: Any) -> PostgresLedger:
        return PostgresLedger(self.database(name), **options)

    @contextmanager
    def briefly(self, name: str = "ledger") -> Iterator[PostgresLedger]:
        """Yield an open ledger whose connections end with the block."""
        with open_database(self.url(name)) as database, PostgresLedger(database) as ledger:
            yield ledger

    def execute(
        self, statement: str, values: tuple[object, ...] = (), name: str = "ledger"
    ) -> list[tuple[Any, ...]]:
        """Do something behind the ledger's back."""
        with psycopg.connect(self.url(name), autocommit=True) as db:
            cursor = db.execute(statement, values)
            return [] if cursor.description is None else list(cursor.fetchall())

    def advance(self, seconds: float) -> None:
        """Let the leases of reservations and intents be so much older, in all databases."""
        for name in self._urls:
            self.execute("UPDATE ledger_held SET deadline = deadline - %s", (seconds,), name)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def ledgers(postgres: Postgres, ledger_template: str) -> Iterator[Ledgers]:
    made = Ledgers(postgres, ledger_template)
    yield made
    made.close()
