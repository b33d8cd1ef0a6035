"""The contract of a ledger on the one that gateways share."""

from __future__ import annotations

import pytest

from tests.kvstore import ledger_contract
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


class TestProcesses(ledger_contract.Processes):
    pass
