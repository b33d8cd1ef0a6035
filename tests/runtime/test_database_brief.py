"""Prepared statements: the answers of SQLAlchemy's, and many small changes as one transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from backupgw.runtime.database import Database, DatabaseConflict, clock, open_database
from backupgw.runtime.database.brief import Brief, Prepared
from backupgw.runtime.database.tables.tokens import spent_tokens

ADD = Prepared(
    spent_tokens.insert()
    .values(issuer="test", id=sa.bindparam("new_id"), until=sa.bindparam("new_until"))
    .returning(spent_tokens.c.id, spent_tokens.c.until)
)
FIND = Prepared(sa.select(spent_tokens).where(spent_tokens.c.id == sa.bindparam("wanted")))
NOW = Prepared(sa.select(clock().label("now")))
END = Prepared(spent_tokens.delete().where(spent_tokens.c.id == sa.bindparam("wanted")))


@pytest.fixture
def database(state_url: str) -> Iterator[Database]:
    with open_database(state_url) as database:
        yield database


def names(database: Database) -> set[str]:
    with database.read() as connection:
        return {str(name) for (name,) in connection.execute(sa.select(spent_tokens.c.id))}


def add(database: Database, name: str) -> None:
    database.run_brief(lambda brief: brief.one(ADD, new_id=name, new_until=2.5))


def test_rows_have_names(database: Database) -> None:
    added = database.run_brief(lambda brief: brief.one(ADD, new_id="a", new_until=2.5))
    assert (added.id, added.until) == ("a", 2.5)
    with database.brief() as brief:
        found = brief.one(FIND, wanted="a")
        assert (found.issuer, found.id, found.until) == ("test", "a", 2.5)
        assert brief.one(FIND, wanted="b") is None
        assert abs(brief.one(NOW).now - database.now()) < 5
    assert database.run_brief(lambda brief: brief.change(END, wanted="a")) == 1
    assert database.run_brief(lambda brief: brief.change(END, wanted="a")) == 0


def test_what_is_read_is_of_one_moment(database: Database) -> None:
    with database.brief() as brief:
        assert brief.one(FIND, wanted="a") is None
        add(database, "a")
        assert brief.one(FIND, wanted="a") is None
    with database.brief() as brief:
        assert brief.one(FIND, wanted="a") is not None


def test_what_goes_wrong_is_undone_alone(database: Database) -> None:
    """Of changes that are made together, each fails or succeeds for itself."""
    add(database, "taken")
    begin = threading.Barrier(12)

    def work(number: int) -> str:
        def change(brief: Brief) -> str:
            brief.one(ADD, new_id=f"first {number}", new_until=1.0)
            if number % 3 == 1:
                raise ZeroDivisionError
            brief.one(ADD, new_id="taken" if number % 3 == 2 else f"{number}", new_until=1.0)
            return "done"

        begin.wait()
        try:
            return database.run_brief(change)
        except (ZeroDivisionError, DatabaseConflict) as error:
            return type(error).__name__

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(work, range(12)))
    assert found == ["done", "ZeroDivisionError", "DatabaseConflict"] * 4
    good = range(0, 12, 3)
    assert names(database) == {"taken", *map(str, good), *(f"first {n}" for n in good)}


def test_many_threads_lose_nothing(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add(database, str(number)), range(200)))
    assert names(database) == set(map(str, range(200)))


def test_a_transaction_that_is_not_made_durable_is_made_all_the_same(database: Database) -> None:
    database.run_brief(lambda brief: brief.one(ADD, new_id="a", new_until=1.0), durable=False)
    add(database, "b")
    assert names(database) == {"a", "b"}
