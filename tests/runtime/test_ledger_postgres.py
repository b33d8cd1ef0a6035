"""The contract of a ledger on the one that gateways share."""

from __future__ import annotations

import os

import pytest

from tests.kvstore import ledger_contract
from tests.kvstore.ledger_contract import Clock, LedgerUnderTest
from tests.runtime.ledger_place import Ledgers


@pytest.fixture
def clock(ledgers: Ledgers) -> Ledgers:
    return ledgers


@pytest.fixture
def make_ledger(ledgers: Ledgers) -> Ledgers:
    return ledgers


class TestAccounts(ledger_contract.Accounts):
    pass


class TestAlarms(ledger_contract.Alarms):
    pass


class TestLeases(ledger_contract.Leases):
    pass


class TestChanges(ledger_contract.Changes):
    pass


class TestClaims(ledger_contract.Claims):
    def died(self, ledger: LedgerUnderTest, clock: Clock) -> None:
        assert isinstance(clock, Ledgers)
        clock.execute(
            "UPDATE ledger_sessions SET deadline = 0, lease = 0 WHERE process <> %s", (os.getpid(),)
        )


class TestProcesses(ledger_contract.Processes):
    pass
