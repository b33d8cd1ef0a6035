"""PostgreSQL crashes and comes back in the middle of traffic: nothing acknowledged is lost."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Connection, text

from backupgw.runtime.database import (
    Database,
    DatabaseError,
    DatabaseUnavailable,
    DatabaseUncertain,
    connect,
)
from tests.servers.postgres import Postgres

THREADS = 8


@dataclass
class Traffic:
    """Eight threads that write until told to stop, and what they were answered."""

    database: Database
    deadline: float
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Condition = field(default_factory=threading.Condition)
    done: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    errors: list[BaseException] = field(default_factory=list)

    def write(self, thread: int) -> None:
        count = 0
        while not self.stop.is_set():
            count += 1
            name = f"{thread}-{count}"

            def work(connection: Connection, name: str = name) -> None:
                # Two statements: half of a transaction would be seen.
                connection.execute(text("INSERT INTO lines VALUES (:name, 1)"), {"name": name})
                connection.execute(text("INSERT INTO lines VALUES (:name, 2)"), {"name": name})

            try:
                self.database.run(work, deadline=self.deadline)
                answer = self.done
            except DatabaseUnavailable as error:
                answer = self.refused if error.retryable else self.unknown
            except BaseException as error:  # noqa: BLE001 - anything else is what the test is for
                self.errors.append(error)
                return
            with self.lock:
                answer.add(name)
                self.lock.notify_all()

    def wait_for_more(self, count: int) -> None:
        with self.lock:
            wanted = len(self.done) + count
            assert self.lock.wait_for(lambda: len(self.done) >= wanted or self.errors, 60)


def play(crashes: int, deadline: float, *, away: float = 0) -> Traffic:
    """Crash the server `crashes` times under traffic, and check what is left."""
    with Postgres() as server:
        url = server.new_database()
        with connect(url, connections=4) as database:
            with database.begin() as connection:
                connection.execute(text("CREATE TABLE lines (name text, half int)"))
            traffic = Traffic(database, deadline)
            threads = [
                threading.Thread(target=traffic.write, args=(index,)) for index in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            try:
                for _ in range(crashes):
                    traffic.wait_for_more(30)
                    server.stop("immediate")
                    if away:
                        traffic.stop.wait(away)
                    server.start()
                traffic.wait_for_more(30)
            finally:
                traffic.stop.set()
                for thread in threads:
                    thread.join(60)
            assert traffic.errors == []
            assert 0 < server.connections(url) <= 4
            with database.read() as connection:
                found = Counter(
                    str(name) for (name,) in connection.execute(text("SELECT name FROM lines"))
                )
        kept = set(found)
        assert set(found.values()) <= {2}, "half a transaction, or one done twice"
        assert traffic.done <= kept, f"acknowledged and lost: {traffic.done - kept}"
        assert not traffic.refused & kept, "refused and done all the same"
        assert kept <= traffic.done | traffic.unknown
        assert server.wait_until_left(url) == 0, "connections were left open"
    return traffic


def test_a_crash_in_mid_traffic_loses_nothing_that_was_acknowledged() -> None:
    traffic = play(3, 60)
    assert not traffic.refused, "who had time enough should have been served in the end"


def test_who_cannot_wait_is_refused_clearly_while_the_server_is_away() -> None:
    traffic = play(1, 0.05, away=0.5)
    assert traffic.refused


@pytest.mark.soak
def test_many_crashes_in_mid_traffic() -> None:
    play(50, 60)


@pytest.fixture(autouse=True)
def server_there(postgres_programs: None) -> None:
    """All of this needs PostgreSQL's programs."""


def test_a_session_that_was_ended_by_the_administrator_is_replaced(postgres: Postgres) -> None:
    url = postgres.new_database()
    with connect(url) as database:
        first = database.now()
        name = url.rsplit("/", 1)[1]
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
        assert database.now() > first


def test_a_transaction_that_loses_its_session_is_repeated_whole(postgres: Postgres) -> None:
    url = postgres.new_database()
    with connect(url) as database:
        with database.begin() as connection:
            connection.execute(text("CREATE TABLE lines (name text)"))
        tries = []

        def work(connection: Connection) -> None:
            connection.execute(text("INSERT INTO lines VALUES ('x')"))
            tries.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            if len(tries) == 1:
                postgres.execute(f"SELECT pg_terminate_backend({tries[0]}, 10000)")
            connection.execute(text("INSERT INTO lines VALUES ('x')"))

        database.run(work)
        assert len(set(tries)) == 2
        with database.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM lines")).scalar_one() == 2


@pytest.mark.parametrize(("idempotent", "times"), [(False, 1), (True, 2)])
def test_a_commit_without_an_answer_is_repeated_only_where_that_does_no_harm(
    postgres: Postgres, idempotent: bool, times: int
) -> None:
    url = postgres.new_database()
    with connect(url) as database:
        tries: list[int] = []

        def work(connection: Connection) -> None:
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            tries.append(pid)
            if len(tries) == 1:
                # Nothing more is said on this connection but COMMIT.
                postgres.execute(f"SELECT pg_terminate_backend({pid}, 10000)")

        if idempotent:
            database.run(work, idempotent=True)
        else:
            with pytest.raises(DatabaseUncertain) as caught:
                database.run(work)
            assert isinstance(caught.value, DatabaseError)
            assert not caught.value.retryable
        assert len(tries) == times
