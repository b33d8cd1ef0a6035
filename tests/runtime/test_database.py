"""Transactions on both databases: whole or not at all, in any process, and clear when refused."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text

from backupgw.runtime.database import (
    Database,
    DatabaseBusy,
    DatabaseConflict,
    DatabaseDamaged,
    DatabaseError,
    DatabaseSchemaError,
    DatabaseSettingsError,
    DatabaseUnavailable,
    clock,
    connect,
    insert_new,
    open_database,
    policy,
    schema,
    sqlite_url,
)
from backupgw.runtime.database.tables.tokens import spent_tokens, token_changes
from tests.servers.postgres import PASSWORD, QUOTED_PASSWORD, Postgres


@pytest.fixture
def database(state_url: str) -> Iterator[Database]:
    with open_database(state_url) as database:
        yield database


def number(connection: Connection) -> int:
    return int(connection.execute(select(token_changes.c.number)).scalar_one())


def read_then_write(connection: Connection) -> None:
    found = number(connection)
    time.sleep(0)  # lets another thread in, where one may come in
    connection.execute(token_changes.update().values(number=found + 1))


def row(name: object) -> dict[str, object]:
    return {"issuer": "test", "id": str(name), "until": 1.0}


def names(database: Database) -> set[str]:
    with database.read() as connection:
        return {str(name) for (name,) in connection.execute(select(spent_tokens.c.id))}


def test_an_exception_undoes_what_its_transaction_did(database: Database) -> None:
    def work(connection: Connection) -> None:
        insert_new(connection, spent_tokens, row("lost"))
        _ = 1 // 0

    with pytest.raises(ZeroDivisionError):
        database.run(work)
    with database.begin() as connection:
        insert_new(connection, spent_tokens, row("kept"))
    assert names(database) == {"kept"}


def test_what_many_read_and_then_write_is_never_lost(database: Database) -> None:
    """Neither an update lost nor a deadlock that reaches anybody."""
    with database.read() as connection:
        before = number(connection)

    def add(_: int) -> None:
        for _ in range(10):
            database.run(read_then_write, serializable=True, deadline=60)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(8)))
    with database.read() as connection:
        assert number(connection) == before + 80


def test_reading_sees_one_moment_whatever_others_write(database: Database) -> None:
    with database.read() as connection:
        before = number(connection)
        database.run(read_then_write)
        assert number(connection) == before
    with database.read() as connection:
        assert number(connection) == before + 1


def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    with database.begin() as writer:
        read_then_write(writer)
        with database.read() as reader:
            assert number(reader) == number(writer) - 1


def test_a_second_row_of_a_kind_is_a_conflict(database: Database) -> None:
    with database.autocommit() as connection:
        assert insert_new(connection, spent_tokens, row("one"))
        assert not insert_new(connection, spent_tokens, row("one"))

    def work(connection: Connection) -> None:
        connection.execute(spent_tokens.insert().values(**row("two")))
        connection.execute(spent_tokens.insert().values(**row("one")))

    with pytest.raises(DatabaseConflict) as caught:
        database.run(work)
    assert "'one'" not in str(caught.value), "rows may hold what nobody should read"
    assert "(one)" not in str(caught.value)
    assert names(database) == {"one"}


def test_the_databases_clock_goes_on_within_a_transaction(database: Database) -> None:
    before = database.now()
    with database.begin() as connection:
        first = connection.execute(select(clock())).scalar_one()
        time.sleep(0.002)
        second = connection.execute(select(clock())).scalar_one()
        assert before <= first < second <= database.now(connection)
    assert abs(second - time.time()) < 60


def test_a_connection_in_use_is_waited_for(state_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "POOL_TIMEOUT", 0.05)
    with open_database(state_url, connections=1) as database, database.read() as connection:
        with pytest.raises(DatabaseUnavailable) as caught, database.read():
            pass
        assert caught.value.retryable
        assert number(connection) > 0
    with open_database(state_url, connections=1) as database:
        assert names(database) == set()


def test_a_child_has_connections_of_its_own(database: Database) -> None:
    """Were they the parent's, the two would take each other's answers."""
    with database.begin() as connection:
        read_then_write(connection)
        before = number(connection)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with database.read() as own:
                    # The parent's transaction is open.
                    status = 0 if number(own) == before - 1 else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    with database.read() as connection:
        assert number(connection) == before


def _open_and_write(url: str, start: Barrier, index: int) -> None:
    start.wait(60)
    with open_database(url) as database:
        for count in range(10):
            name = f"{index}-{count}"
            database.run(partial(insert_new, table=spent_tokens, values=row(name)))


def test_eight_processes_open_a_fresh_state_at_once(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "state.sqlite3")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    start = context.Barrier(8)
    processes = [
        context.Process(target=_open_and_write, args=(url, start, index), daemon=True)
        for index in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    with open_database(url) as database:
        assert len(names(database)) == 80
        with database.read() as connection:
            assert schema.found_version(connection) == schema.needed_version()
            settings = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "quick_check")
            }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "quick_check": "ok",
    }
    assert stat.S_IMODE((tmp_path / "state.sqlite3").stat().st_mode) == 0o600


def test_another_process_that_holds_the_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "BUSY_TIMEOUT", 0.05)
    with open_database(sqlite_url(tmp_path / "state.sqlite3")) as database:
        other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match="locked"):
            database.run(read_then_write, deadline=0.1)
        released = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
        other.close()
        other = sqlite3.connect(
            tmp_path / "state.sqlite3", isolation_level=None, check_same_thread=False
        )
        other.execute("BEGIN IMMEDIATE")
        released.start()
        database.run(read_then_write)
        released.join()
        other.close()


def test_a_file_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    with open_database(sqlite_url(path)) as database:
        database.engine.dispose()
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(DatabaseUnavailable, match="unable to open"):
            database.run(read_then_write, deadline=0.05)
        assert not path.exists()
        (tmp_path / "elsewhere").rename(path)
        database.run(read_then_write)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    path.write_bytes(b"no database" * 500)
    with pytest.raises(DatabaseDamaged, match="state import"):
        open_database(sqlite_url(path))
    assert path.read_bytes() == b"no database" * 500


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseSettingsError, match="No such file"):
        open_database(sqlite_url(tmp_path / "none" / "state.sqlite3"))


@pytest.mark.root
def test_a_full_disk_refuses_and_damages_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        with open_database(sqlite_url(tmp_path / "state.sqlite3")) as database:
            database.run(lambda c: insert_new(c, spent_tokens, row("before")))
            (tmp_path / "ballast").write_bytes(b"x" * (200 << 10))
            wanted = [row(f"{index:05}" + "x" * 1000) for index in range(3000)]
            with pytest.raises(DatabaseUnavailable, match=r"full|I/O"):
                database.run(lambda c: c.execute(spent_tokens.insert(), wanted), deadline=0.1)
            assert names(database) == {"before"}
            (tmp_path / "ballast").unlink()
            database.run(lambda c: insert_new(c, spent_tokens, row("after")))
            assert names(database) == {"before", "after"}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root:hunter2@localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x?mode=hunter2",
        "postgresql://u:hunter2@localhost/x?no_such_thing=1",
        "postgresql://u:hunter2@[::1/x",
        "postgresql://u:hunter2%@localhost/x",
        "hunter2",
    ],
)
def test_a_url_that_is_none_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(DatabaseSettingsError) as caught:
        open_database(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("old", "new", "error", "told"),
    [
        (f":{QUOTED_PASSWORD}@", ":hunter2@", DatabaseSettingsError, "password authentication"),
        ("gateway", "nobody", DatabaseSettingsError, "password authentication"),
        ("/test_", "/none_", DatabaseSettingsError, "does not exist"),
        ("127.0.0.1", "nowhere.invalid", DatabaseUnavailable, "nowhere.invalid"),
    ],
)
def test_a_database_that_refuses_is_told_without_the_password(
    postgres_url: str, old: str, new: str, error: type[DatabaseError], told: str
) -> None:
    with pytest.raises(error, match=told) as caught:
        open_database(postgres_url.replace(old, new))
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not {word for word in ("hunter2", PASSWORD, QUOTED_PASSWORD) if word in shown}


def test_a_password_of_its_own_wins_and_the_url_may_ask_for_more(postgres_url: str) -> None:
    bare = postgres_url.replace(f":{QUOTED_PASSWORD}@", "@")
    url = bare + "?options=-c%20lock_timeout%3D123ms&connect_timeout=2"
    with (
        connect(url, password=PASSWORD, application="backupgw jobs") as database,
        database.read() as c,
    ):
        shown = {
            name: c.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("application_name", "lock_timeout", "statement_timeout")
        }
    assert shown == {
        "application_name": "backupgw jobs",
        "lock_timeout": "123ms",
        "statement_timeout": "30s",
    }
    assert PASSWORD not in repr(database)
    assert PASSWORD not in repr(database.address)


def test_a_socket_will_do(postgres: Postgres) -> None:
    with connect(postgres.socket_url()) as database:
        assert database.now() > 0


def test_a_database_without_tables_is_told_what_to_run(postgres_url: str) -> None:
    with (
        connect(postgres_url) as database,
        pytest.raises(DatabaseSchemaError, match="config migrate"),
        database.read() as connection,
    ):
        number(connection)


def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    with connect(postgres_url) as database:
        schema.migrate(database)
        for name in ("a", "b"):
            database.run(partial(insert_new, table=spent_tokens, values=row(name)))
        both = threading.Barrier(2)
        tries: list[str] = []

        def change(first: str, second: str) -> None:
            def work(connection: Connection) -> None:
                update = spent_tokens.update().values(until=spent_tokens.c.until + 1)
                connection.execute(update.where(spent_tokens.c.id == first))
                if first not in tries:
                    tries.append(first)
                    both.wait(30)
                else:
                    tries.append(first)
                connection.execute(update.where(spent_tokens.c.id == second))

            database.run(work)

        with ThreadPoolExecutor(2) as threads:
            waiting = [threads.submit(change, *pair) for pair in (("a", "b"), ("b", "a"))]
            for each in waiting:
                each.result(60)
        assert len(tries) == 3, "one of the two was the deadlock's victim"
        with database.read() as connection:
            found = connection.execute(select(spent_tokens.c.until)).scalars().all()
            assert found == [3.0, 3.0]


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "find_spec", lambda name: None)
    with pytest.raises(DatabaseSettingsError, match=r"backupgw-runtime\[postgres\]"):
        open_database("postgresql://localhost/x")


@pytest.mark.parametrize("begun", ["before", "after"])
def test_a_connection_in_use_when_the_database_is_closed_is_closed_when_it_is_given_back(
    postgres: Postgres, postgres_url: str, begun: str
) -> None:
    # As by a job's thread that outlives its grace: a gateway must not leave sessions behind.
    database = connect(postgres_url)
    if begun == "after":
        database.close()
    with database.autocommit() as connection:
        database.close()
        assert connection.execute(text("SELECT 1")).scalar() == 1
        assert postgres.connections(postgres_url) == 1
    assert postgres.wait_until_left(postgres_url, 10) == 0
