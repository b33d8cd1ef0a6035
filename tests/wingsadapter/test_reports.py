"""The Panel is told of every end, whatever becomes of it, of us and of the wire."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.double import Fault, Faults
from tests.servers.panel import TOKEN, TOKEN_ID, Backup, Panel

from backupgw.wingsadapter import panel as panel_client
from backupgw.wingsadapter.records import AlreadyThere, Kind, Operation, Records
from backupgw.wingsadapter.reports import Reporter

PACE = 0.02
"""Waits of seconds become some hundredths."""


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    found = Records(tmp_path / "wings.sqlite3")
    yield found
    found.close()


@pytest.fixture
def double() -> Iterator[Panel]:
    with Panel() as found:
        yield found


@pytest.fixture
def client(double: Panel) -> Iterator[panel_client.Panel]:
    found = panel_client.Panel(double.url, TOKEN_ID, TOKEN)
    yield found
    found.close()


def row_of(double: Panel, *, hidden: bool = False, early: int = 0) -> Backup:
    row = Backup(str(uuid.uuid4()), str(uuid.uuid4()), "restic", hidden=hidden, early=early)
    double.backups[row.uuid] = row
    return row


def ended(records: Records, row: Backup, *, successful: bool = True) -> Operation:
    operation = records.accept(Kind.BACKUP, row.server, row.uuid, "restic", {})
    outcome = {"checksum": "ab" * 32, "checksum_type": "restic", "size": 5, "parts": None}
    found = records.finish(
        operation.number, successful=successful, outcome=outcome if successful else None
    )
    assert found is not None
    return found


class _Reporting:
    def __init__(self, records: Records, client: panel_client.Panel) -> None:
        self._records = records
        self._client = client

    def __enter__(self) -> Reporter:
        self._reporter = Reporter(self._records, self._client, pace=PACE)
        self._reporter.start()
        return self._reporter

    def __exit__(self, *exception: object) -> None:
        self._reporter.close()


def test_successes_and_failures(
    records: Records, double: Panel, client: panel_client.Panel
) -> None:
    good, bad = row_of(double), row_of(double)
    ended(records, good)
    with _Reporting(records, client) as reporter:
        assert double.wait_for_backup(good)
        ended(records, bad, successful=False)
        reporter.ring()
        assert not double.wait_for_backup(bad)
        restore = records.accept(Kind.RESTORE, good.server, good.uuid, "restic", {})
        records.finish(restore.number, successful=False)
        reporter.ring()
        assert not double.wait_for_restore(good)
    assert good.reports == [
        {"checksum": "ab" * 32, "checksum_type": "restic", "size": 5, "successful": True,
         "parts": None}
    ]  # fmt: skip
    assert good.checksum == f"restic:{'ab' * 32}"


def test_a_panel_that_has_not_committed_yet(
    records: Records, double: Panel, client: panel_client.Panel
) -> None:
    row = row_of(double, early=3)
    ended(records, row)
    with _Reporting(records, client):
        assert double.wait_for_backup(row)


def test_a_backup_that_nobody_wants_to_know_of(
    records: Records, double: Panel, client: panel_client.Panel
) -> None:
    row = row_of(double)
    del double.backups[row.uuid]
    operation = ended(records, row)
    with _Reporting(records, client):
        pause = threading.Event()
        for _ in range(600):
            if not records.due(float("inf"))[0]:
                break
            pause.wait(0.05)
    found = records.find(operation.number)
    assert found is not None
    assert found.reported is not None
    assert found.tries > 2  # it was not believed at once


@pytest.mark.parametrize("kind", [Fault.UNAVAILABLE, Fault.RESET, Fault.LOST, Fault.TOO_MANY])
def test_a_wire_and_a_panel_that_fail(
    records: Records, double: Panel, client: panel_client.Panel, kind: Fault
) -> None:
    rows = [row_of(double) for _ in range(4)]
    double.faults = Faults(rate=0.7, kinds=(kind,), seed=5, limit=8)
    for row in rows:
        ended(records, row)
    with _Reporting(records, client):
        assert all(double.wait_for_backup(row) for row in rows)
        pause = threading.Event()
        for _ in range(400):
            if not records.due(float("inf"))[0]:
                break
            pause.wait(0.05)  # the Panel has it, and the answer was lost
    assert records.due(float("inf"))[0] == []
    for row in rows:
        assert row.successful


def test_a_panel_that_is_away_and_a_node_that_restarts(
    records: Records, double: Panel, client: panel_client.Panel
) -> None:
    rows = [row_of(double) for _ in range(3)]
    double.kill()
    for row in rows:
        ended(records, row)
    with _Reporting(records, client):
        threading.Event().wait(0.3)
    assert len(records.due(float("inf"))[0]) == 3
    double.start()
    with _Reporting(records, client):
        assert all(double.wait_for_backup(row) for row in rows)


def test_an_operation_ends_once(records: Records) -> None:
    server, backup = str(uuid.uuid4()), str(uuid.uuid4())
    operation = records.accept(Kind.BACKUP, server, backup, "restic", {"ignore": "x"})
    with pytest.raises(AlreadyThere):
        records.accept(Kind.BACKUP, str(uuid.uuid4()), backup, "restic", {})
    assert records.unfinished() == [operation]
    assert records.finish(operation.number, successful=True) is not None
    assert records.finish(operation.number, successful=False, error="late") is None
    found = records.find(operation.number)
    assert found is not None
    assert (found.successful, found.error) == (True, None)
    first = records.accept(Kind.RESTORE, server, backup, "restic", {})
    with pytest.raises(AlreadyThere):
        records.accept(Kind.RESTORE, server, str(uuid.uuid4()), "restic", {})
    records.finish(first.number, successful=False)
    records.accept(Kind.RESTORE, server, backup, "restic", {})


def test_what_the_panel_is_asked(double: Panel, client: panel_client.Panel) -> None:
    double.page_size = 2
    wanted = {double.add_server(build={"disk_space": 5}) for _ in range(5)}
    found = {server.uuid: server for server in client.servers()}
    assert set(found) == wanted
    one = next(iter(wanted))
    assert found[one].disk_limit == 5 << 20
    assert client.server(one) == found[one]
    assert client.server(str(uuid.uuid4())) is None
    row = row_of(double)
    assert client.lists(row.uuid)
    row.completed = 1.0
    assert client.lists(row.uuid)
    assert not client.lists(str(uuid.uuid4()))
    double.kill()
    # Nobody says that it is gone.
    assert client.lists(str(uuid.uuid4()))
