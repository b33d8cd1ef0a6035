"""A place under quota, and its ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kvstore import quota_place

from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Limit, SQLiteLedger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SQLiteLedger]:
    with quota_place.ledger_of(tmp_path) as ledger:
        ledger.set_limit("server", Limit(hard_bytes=quota_place.ROOM, hard_objects=100))
        yield ledger


@pytest.fixture
def place(tmp_path: Path, ledger: SQLiteLedger) -> Iterator[QuotaLayer]:
    quota_place.make(tmp_path)
    with quota_place.layer_of(tmp_path, ledger) as place:
        yield place


@pytest.fixture
def check(tmp_path: Path, ledger: SQLiteLedger) -> Callable[[], None]:
    """Compare the ledger with the disk."""

    def compare() -> None:
        assert quota_place.nothing_reserved(ledger)
        assert quota_place.in_ledger(ledger) == quota_place.on_disk(tmp_path)

    return compare
