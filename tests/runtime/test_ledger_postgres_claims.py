"""Two hosts never change one name at a time believing both that they have it alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.ledger import NOTHING, Amount, Change, Effect, LedgerError
from backupgw.runtime.ledger import PostgresLedger, link
from tests.runtime.ledger_place import Ledgers

pytestmark = pytest.mark.alone

SCOPES = ("server",)
ONE, TWO, THREE = Amount(60, 1), Amount(70, 1), Amount(90, 1)


@pytest.fixture
def here(ledgers: Ledgers) -> Iterator[PostgresLedger]:
    with ledgers(host="here") as ledger:
        ledger.reconcile("", lambda folder: [], lambda name: SCOPES)
        yield ledger


@pytest.fixture
def there(ledgers: Ledgers) -> Iterator[PostgresLedger]:
    with ledgers(host="there") as ledger:
        yield ledger


def effect(after: Amount, before: Amount = NOTHING, name: str = "a") -> Effect:
    return Effect(name, SCOPES, before, after)


def used(ledger: PostgresLedger) -> tuple[Amount, Amount]:
    usage = ledger.usage("server")
    return usage.used, usage.reserved


def run_out(ledgers: Ledgers, ledger: PostgresLedger) -> None:
    """Let the lease of a ledger's session be over, as if it had been cut off for long."""
    statement = "UPDATE ledger_sessions SET deadline = 0, lease = -1e10 WHERE id = %s"
    ledgers.execute(statement, (ledger._own.id,))


def break_connections(ledgers: Ledgers) -> None:
    ledgers.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


class Waiting(threading.Thread):
    """Somebody who wants names, and has them from `has` to `go`."""

    def __init__(self, ledger: PostgresLedger, *names: str) -> None:
        super().__init__()
        self._ledger = ledger
        self._names = names
        self.has = threading.Event()
        self.go = threading.Event()
        self.start()

    def run(self) -> None:
        with self._ledger.changing("", self._names):
            self.has.set()
            self.go.wait(60)


def wait_until_asked(ledgers: Ledgers, name: str) -> None:
    """Return when somebody waits for a name that is held."""
    statement = "SELECT 1 FROM ledger_claims WHERE name = %s AND waited"
    patience = threading.Event()
    for _ in range(3000):
        if ledgers.execute(statement, (name,)):
            return
        patience.wait(0.02)
    raise AssertionError(f"nobody waits for {name}")


class TestExclusive:
    def test_a_name_is_one_hosts_at_a_time_and_the_other_is_told(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            other = Waiting(there, "a")
            wait_until_asked(ledgers, "a")
            assert not other.has.is_set()
        assert other.has.wait(20)  # shorter than the lease: it was told
        other.go.set()
        other.join()

    def test_threads_of_a_process_wait_for_each_other_too(
        self, ledgers: Ledgers, here: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            other = Waiting(here, "a")
            wait_until_asked(ledgers, "a")
            assert not other.has.is_set()
        assert other.has.wait(20)
        other.go.set()
        other.join()

    def test_other_names_and_places_go_on(
        self, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]), there.changing("", ["b"]), there.changing("other", ["a"]):
            pass

    def test_several_names_are_had_together_or_not_at_all(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["b"]):
            other = Waiting(there, "a", "b", "c")
            wait_until_asked(ledgers, "b")
            with here.changing("", ["a"]), here.changing("", ["c"]):
                pass  # it holds nothing while it waits: no circle can arise
        assert other.has.wait(20)
        other.go.set()
        other.join()

    def test_very_long_names_are_names(self, here: PostgresLedger) -> None:
        name = "/".join(["long" * 60] * 16)
        with here.changing("", [name]):
            here.settle(here.intend("", [effect(ONE, name=name)]))
        assert used(here) == (ONE, NOTHING)

    def test_a_count_waits_for_changes_beneath_the_folder_and_keeps_new_ones_waiting(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        changing = Waiting(there, "a/b/c")
        assert changing.has.wait(20)
        listing = threading.Event()
        listed = threading.Event()

        def count() -> None:
            with here._own.locks.counting(""), here._own.locks.listing("", "a"):
                listing.set()
                listed.wait(60)

        counter = threading.Thread(target=count)
        counter.start()
        wait_until_asked(ledgers, "a/b/c")
        assert not listing.is_set()
        changing.go.set()
        assert listing.wait(20)
        other = Waiting(there, "a/x")
        wait_until_asked(ledgers, "a")
        assert not other.has.is_set()
        listed.set()
        assert other.has.wait(20)
        other.go.set()
        for thread in (changing, other, counter):
            thread.join()


class TestCutOff:
    def test_a_lost_connection_costs_a_living_process_nothing(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        reservation = here.reserve("", SCOPES, Amount(5, 0))
        with here.changing("", ["a"]):
            break_connections(ledgers)
            with there._own.locks.trying("", "a") as free:
                assert not free
            change = here.intend("", [effect(ONE)])
            break_connections(ledgers)
            assert there.recover("", lambda name: ONE).repairs == []
            here.settle(change)
        here.release(reservation)
        assert used(here) == (ONE, NOTHING)

    def test_who_lost_the_name_before_the_intent_is_refused_it(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            run_out(ledgers, here)
            with there.changing("", ["a"]):
                with pytest.raises(LedgerError, match="somebody else") as caught:
                    here.intend("", [effect(ONE)])
                assert caught.value.retryable
                change = there.intend("", [effect(TWO)])
                there.settle(change)
        assert used(there) == (TWO, NOTHING)
        with here.changing("", ["a"]):  # and goes on, as a new session
            here.settle(here.intend("", [effect(ONE, before=TWO)]))
        assert used(here) == (ONE, NOTHING)

    def test_a_claim_that_a_crash_of_the_database_took_is_noticed(
        self, ledgers: Ledgers, here: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            ledgers.execute("DELETE FROM ledger_claims")
            with pytest.raises(LedgerError, match="nothing was changed"):
                here.intend("", [effect(ONE)])
        assert used(here) == (NOTHING, NOTHING)

    def test_letting_go_late_takes_nothing_from_the_next_one(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            run_out(ledgers, here)
            other = Waiting(there, "a")
            assert other.has.wait(20)
        here.usage("server")
        here._own.locks.catch_up()
        with here._own.locks.trying("", "a") as free:
            assert not free
        other.go.set()
        other.join()

    @pytest.mark.parametrize("last", ["here", "there"])
    def test_a_change_that_ends_after_its_lease_is_counted_as_it_ended(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger, last: str
    ) -> None:
        with here.changing("", ["a"]):
            late = here.intend("", [effect(ONE)])
            run_out(ledgers, here)  # stalled, with the item about to get its name
            place = {"a": NOTHING}
            if last == "there":
                place["a"] = ONE  # it did in the last moment, unseen by its gateway
            with there.changing("", ["a"]):
                change = there.intend("", [effect(THREE, before=place["a"])])
                there.settle(change)
            place["a"] = ONE if last == "here" else THREE
            here.settle(late)
        here.usage("server")  # the settle is no longer pending
        there.recover("", place.__getitem__)
        assert used(there) == (place["a"], NOTHING)
        assert ledgers.execute("SELECT * FROM ledger_doubts") == []
        assert not there.needs_reconcile("")

    def test_a_stalled_change_that_nobody_settles_is_looked_at_again(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            here.intend("", [effect(ONE)])
            run_out(ledgers, here)
            assert [repair.found for repair in there.recover("", lambda _: NOTHING).repairs] == [
                NOTHING
            ]
        # Now it happens, and the process dies without a word.
        assert there.recover("", lambda _: ONE).repairs == []
        ledgers.execute("UPDATE ledger_doubts SET since = since - 601")
        assert [repair.found for repair in there.recover("", lambda _: ONE).repairs] == [ONE]
        assert used(there) == (ONE, NOTHING)
        assert ledgers.execute("SELECT * FROM ledger_doubts") == []

    def test_a_count_settles_what_is_in_doubt(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        late: list[Change] = []
        with here.changing("", ["a"]):
            late.append(here.intend("", [effect(ONE)]))
            run_out(ledgers, here)
            there.recover("", lambda _: NOTHING)
        item = ItemInfo("a", exists=True, size=60, directory=False)
        there.reconcile("", lambda _: [item], lambda _: SCOPES)
        assert used(there) == (ONE, NOTHING)
        here.settle(late[0])
        here.usage("server")
        there.recover("", lambda _: ONE)
        assert used(there) == (ONE, NOTHING)
        assert ledgers.execute("SELECT * FROM ledger_doubts") == []

    def test_a_change_that_ends_when_nobody_remembers_it_asks_for_a_count(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        with here.changing("", ["a"]):
            late = here.intend("", [effect(ONE)])
            run_out(ledgers, here)
            there.recover("", lambda _: NOTHING)
            ledgers.execute("UPDATE ledger_doubts SET since = since - 601")
            there.recover("", lambda _: NOTHING)
            assert not there.needs_reconcile("")
            here.settle(late)
        here.usage("server")
        assert there.needs_reconcile("")

    def test_the_dead_give_back_what_they_reserved_and_the_living_make_it_anew(
        self, ledgers: Ledgers, here: PostgresLedger, there: PostgresLedger
    ) -> None:
        reservation = here.reserve("", SCOPES, ONE)
        run_out(ledgers, here)
        assert used(there) == (NOTHING, NOTHING)
        here.grow(reservation, TWO)
        assert used(there) == (NOTHING, TWO)
        here.release(reservation)
        assert used(here) == (NOTHING, NOTHING)

    def test_the_dead_ones_names_are_free_for_who_waits(
        self, ledgers: Ledgers, there: PostgresLedger
    ) -> None:
        gone = ledgers(host="here", session_lease=1.0)
        gone.open()
        with gone.changing("", ["a"]):
            gone._own._keeper.stop()  # type: ignore[union-attr]  # no more heartbeats
            gone._own._keeper = None
            other = Waiting(there, "a")
            assert other.has.wait(60)
            other.go.set()
            other.join()
        gone.close()


def wait_for_lock(ledgers: Ledgers, connection: psycopg.Connection[Any]) -> None:
    """Wait until a connection has the lock that it has asked for."""
    asked = "SELECT 1 FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND granted"
    deadline = time.monotonic() + 20
    with psycopg.connect(ledgers.url(), autocommit=True) as other:
        while other.execute(asked, (connection.info.backend_pid,)).fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)


class TestStalled:
    @pytest.mark.parametrize("lock", [link.WRITING, link.CLAIMING])
    def test_who_stalls_in_a_transaction_stops_the_others_for_seconds_only(
        self, ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch, lock: int
    ) -> None:
        monkeypatch.setattr(link, "LOCK_TIMEOUT", link.STALLED + 0.2)
        with psycopg.connect(ledgers.url(), autocommit=True) as stalled, ledgers() as here:
            here.usage("server")
            with contextlib.suppress(psycopg.OperationalError), stalled.pipeline():
                stalled.execute("BEGIN")
                stalled.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
                wait_for_lock(ledgers, stalled)
                with here.changing("", ["a"]):
                    here.settle(here.intend("", [effect(ONE)]))
                assert used(here) == (ONE, NOTHING)
            assert stalled.closed

    def test_who_stalls_while_it_claims_keeps_nobody_from_burying_the_dead(
        self, ledgers: Ledgers, here: PostgresLedger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link, "LOCK_TIMEOUT", link.STALLED + 0.2)
        with psycopg.connect(ledgers.url(), autocommit=True) as stalled:
            here.reserve("", SCOPES, ONE)
            run_out(ledgers, here)
            with contextlib.suppress(psycopg.OperationalError), stalled.pipeline():
                stalled.execute("BEGIN")
                stalled.execute("SELECT pg_advisory_xact_lock(%s)", (link.CLAIMING,))
                wait_for_lock(ledgers, stalled)
                with ledgers(host="there") as there:
                    found = used(there)
            assert found == (NOTHING, NOTHING)
            assert stalled.closed


class TestOrigin:
    def test_another_database_under_the_same_name_asks_for_a_count(
        self, ledgers: Ledgers, here: PostgresLedger
    ) -> None:
        assert not here.needs_reconcile("")
        ledgers.execute("UPDATE ledger_origin SET origin = '1/00000009'")  # as a copy brings it
        with ledgers() as copy:
            assert copy.needs_reconcile("")
