"""PostgreSQL goes away and comes back: clear errors, nothing lost, nothing counted twice."""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupgw.kvstore.backends.base import ItemInfo
from backupgw.kvstore.ledger import NOTHING, Alarm, Amount, Effect, LedgerError, Limit
from backupgw.runtime.database import open_database
from backupgw.runtime.ledger import PostgresLedger
from tests.kvstore import quota_place
from tests.kvstore.quota_place import LIMIT, OBJECTS
from tests.runtime.ledger_place import Ledgers, migrated
from tests.runtime.test_ledger_postgres_hosts import SOAK, running
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.alone

CRASHES = 10 if SOAK else 1
CRASHES_PARTS = [pytest.param(part, id=f"part{part}") for part in range(5 if SOAK else 1)]
"""50 crashes in all, in parts that can be had by themselves."""

SCOPES = ("server",)
ONE = Amount(60, 1)


def effect(after: Amount, before: Amount = NOTHING, name: str = "a") -> Effect:
    return Effect(name, SCOPES, before, after)


@pytest.fixture
def server(postgres_programs: None) -> Iterator[Postgres]:
    """A server that may be stopped."""
    with Postgres() as own:
        yield own


class TestStopped:
    def test_what_waits_is_refused_what_happened_is_remembered_and_all_goes_on(
        self, server: Postgres
    ) -> None:
        cleared = threading.Event()

        def note(alarm: Alarm) -> None:
            if alarm.cleared:
                cleared.set()

        url = migrated(server)
        with open_database(url) as database, PostgresLedger(database, on_alarm=note) as ledger:
            ledger.reconcile("", lambda folder: [], lambda name: SCOPES)
            ledger.set_limit("server", Limit(hard_bytes=100))
            with ledger.changing("", ["big"]):
                ledger.settle(ledger.intend("", [effect(Amount(85, 1), name="big")]))
            reservation = ledger.reserve("", SCOPES, Amount(5, 1))
            with ledger.changing("", ["a"]), ledger.changing("", ["big"]):
                change = ledger.intend("", [effect(Amount(7, 1))], reservation)
                server.stop("immediate")
                ledger.settle(change)
                ledger.amend("", [effect(NOTHING, Amount(85, 1), "big")])  # it was removed
            for ask in (
                lambda: ledger.reserve("", SCOPES, ONE),
                lambda: ledger.intend("", [effect(ONE, name="b")]),
                lambda: ledger.usage("server"),
                lambda: ledger.changing("", ["b"]).__enter__(),
            ):
                with pytest.raises(LedgerError) as caught:
                    ask()
                assert caught.value.retryable
            server.start()
            assert cleared.wait(60)  # told without anybody asking
            assert ledger.usage("server").used == Amount(7, 1)
            assert ledger.usage("server").reserved == NOTHING
            assert not ledger.needs_reconcile("")
            with ledger.changing("", ["b"]):
                ledger.settle(ledger.intend("", [effect(ONE, name="b")]))
            assert ledger.usage("server").used == Amount(67, 2)

    def test_a_removal_that_could_not_be_recorded_and_lost_its_name_asks_for_a_count(
        self, ledgers: Ledgers
    ) -> None:
        with ledgers() as ledger:
            ledger.reconcile("", lambda folder: [], lambda name: SCOPES)
            with ledger.changing("", ["a"]):
                ledgers.execute("DELETE FROM ledger_claims")  # as a crash may take it
                ledger.amend("", [effect(NOTHING, ONE)])
            assert ledger.needs_reconcile("")

    @pytest.mark.parametrize("told", ["after a count", "in a count"])
    def test_a_removal_that_lost_its_name_is_not_taken_off_twice(
        self, ledgers: Ledgers, told: str
    ) -> None:
        with ledgers(host="here") as here, ledgers(host="there") as there:
            for name in ("a/1", "z/1"):
                there.settle(there.intend("", [effect(ONE, name=name)]))
            with here.changing("", ["a/1"]):
                ledgers.execute("DELETE FROM ledger_claims")  # its lease was over

                def listing(folder: str) -> Iterator[ItemInfo]:
                    if not folder:
                        yield ItemInfo("z", True, 0, True)  # "a" is gone with what was in it
                        return
                    yield ItemInfo("1", True, 60, False)
                    if told == "in a count":
                        tell()

                def tell() -> None:
                    here.amend("", [effect(NOTHING, ONE, "a/1")])

                if told == "in a count":
                    with pytest.raises(LedgerError, match="told too late"):
                        there.reconcile("", listing, lambda _: SCOPES)
                    assert there.usage("server").used == ONE + ONE
                else:
                    there.reconcile("", listing, lambda _: SCOPES)
                    tell()
                    assert there.usage("server").used == ONE
            assert there.needs_reconcile("")

    def test_what_a_dead_gateway_left_open_is_settled_and_taken_off(self, ledgers: Ledgers) -> None:
        with ledgers(host="here") as here:
            with ledgers(host="there") as there:
                there.intend("", [effect(ONE)])
            with here.changing("", ["a"]):
                here.amend("", [effect(NOTHING, ONE)])
            for _ in range(2):
                assert here.usage("server").used == NOTHING
                here.recover("", lambda _: NOTHING)

    def test_leases_begin_anew_when_the_database_starts(self, server: Postgres) -> None:
        url = migrated(server)
        with open_database(url) as database, PostgresLedger(database) as ledger:
            change = ledger.intend("", [effect(ONE)])
            name = url.rpartition("/")[2]
            server.execute("UPDATE ledger_sessions SET deadline = 0", name)
            server.restart("immediate")
            with PostgresLedger(database) as other:
                assert other.recover("", lambda _: NOTHING).repairs == []
            ledger.settle(change)
            assert ledger.usage("server").used == ONE

    @pytest.mark.timeout(1800 if SOAK else 300)
    @pytest.mark.parametrize("part", CRASHES_PARTS)
    def test_a_crash_of_the_database_in_mid_traffic_loses_and_leaks_nothing(
        self, server: Postgres, tmp_path: Path, part: int
    ) -> None:
        url = migrated(server)
        name = url.rpartition("/")[2]
        quota_place.make(tmp_path)
        with open_database(url) as database, PostgresLedger(database) as ledger:
            ledger.set_limit("server", Limit(hard_bytes=LIMIT, hard_objects=OBJECTS))
            with quota_place.layer_of(tmp_path, ledger):
                pass
        random_ = random.Random(3 + part)
        away = 0
        for number in range(part * CRASHES, (part + 1) * CRASHES):
            with (
                running(url, tmp_path, host="one", seed=number, threads=8) as first,
                running(url, tmp_path, host="two", seed=number + 1000, threads=8) as second,
            ):
                second.stdout.readline()  # both have begun
                for _ in range(random_.randrange(5, 40)):
                    first.stdout.readline()
                server.restart("immediate")
                for process in (first, second):
                    output = process.communicate()
                    assert process.returncode == 0
                    away += output.count(b"away")
            server.execute("UPDATE ledger_sessions SET deadline = 0, lease = -1e10", name)
            with (
                open_database(url) as database,
                PostgresLedger(database) as ledger,
                quota_place.layer_of(tmp_path, ledger) as place,
            ):
                assert not ledger.needs_reconcile("")
                found = quota_place.on_disk(tmp_path)
                assert quota_place.in_ledger(ledger) == found
                assert quota_place.nothing_reserved(ledger)
                assert found["server"].bytes <= LIMIT
                assert place.reconcile().corrections == []
                for item in quota_place.names(tmp_path):
                    if random_.random() < 0.7:
                        place.delete(item)
            assert server.execute("SELECT * FROM ledger_held", name) == []
            assert server.execute("SELECT * FROM ledger_claims", name) == []
            assert server.wait_until_left(url) == 0
        assert away > 0, "nobody noticed the crash: this shows nothing"


class Proxy:
    """Passes connections on, and breaks one in the middle of a COMMIT when it is told to.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.deliver: bool | None = None
        """Whether the next COMMIT is to reach the server before all breaks; None: no fault."""
        self.faults = 0
        self.refusing = False
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(60)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
            else:
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server)) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                source, target = (client, server) if client in ready else (server, client)
                try:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is client and self.deliver is not None and b"COMMIT" in data:
                        self._break(server, data)
                        return
                    target.sendall(data)
                except OSError:
                    return

    def _break(self, server: socket.socket, data: bytes) -> None:
        deliver, self.deliver = self.deliver, None
        if deliver:
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            while server.recv(1 << 16):
                continue  # it is done, and the client does not hear of it
        self.faults += 1


class TestUnanswered:
    @pytest.fixture
    def proxy(self, postgres: Postgres) -> Iterator[Proxy]:
        proxy = Proxy(postgres.port)
        yield proxy
        proxy.close()

    @pytest.fixture
    def ledger(
        self, ledgers: Ledgers, postgres: Postgres, proxy: Proxy
    ) -> Iterator[PostgresLedger]:
        url = ledgers.url().replace(f":{postgres.port}/", f":{proxy.port}/")
        with open_database(url) as database, PostgresLedger(database) as ledger:
            yield ledger
            proxy.refusing = False

    @pytest.mark.parametrize("arrived", [True, False])
    def test_a_commit_without_an_answer_happens_once(
        self, ledger: PostgresLedger, proxy: Proxy, arrived: bool
    ) -> None:
        proxy.deliver = arrived
        ledger.amend("", [effect(ONE)])
        assert proxy.faults == 1
        assert ledger.usage("server").used == ONE
        proxy.deliver = arrived
        reservation = ledger.reserve("", SCOPES, ONE)
        assert proxy.faults == 2
        assert ledger.usage("server").reserved == ONE
        ledger.release(reservation)
        assert ledger.usage("server").reserved == NOTHING

    @pytest.mark.parametrize("arrived", [True, False])
    def test_what_the_caller_was_told_has_failed_leaves_nothing(
        self, ledger: PostgresLedger, proxy: Proxy, arrived: bool
    ) -> None:
        proxy.deliver, proxy.refusing = arrived, True
        with pytest.raises(LedgerError) as caught:
            ledger.reserve("", SCOPES, ONE)
        assert caught.value.retryable
        proxy.refusing = False
        assert ledger.usage("server").reserved == NOTHING

    @pytest.mark.parametrize("arrived", [True, False])
    def test_what_is_remembered_happens_once_whatever_arrived(
        self, ledger: PostgresLedger, proxy: Proxy, arrived: bool
    ) -> None:
        proxy.deliver, proxy.refusing = arrived, True
        ledger.amend("", [effect(ONE)])
        ledger.amend("", [effect(ONE, name="b")])
        proxy.refusing = False
        assert ledger.usage("server").used == ONE + ONE
        proxy.deliver = True
        assert ledger.usage("server").used == ONE + ONE

    def test_a_name_asked_for_in_vain_is_not_kept(
        self, ledger: PostgresLedger, proxy: Proxy
    ) -> None:
        proxy.deliver, proxy.refusing = True, True
        with pytest.raises(LedgerError), ledger.changing("", ["a"]):
            raise AssertionError("it has the name")
        proxy.refusing = False
        with ledger.changing("", ["a"]):
            pass
