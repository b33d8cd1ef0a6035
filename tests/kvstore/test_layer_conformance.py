"""The layers keep every promise that a backend makes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.kvstore import quota_place

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.conformance import Check, Status, Subject, checks
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Limit, SQLiteLedger

_ledgers: dict[str, SQLiteLedger] = {}
"""The open ledgers of this process; one that the suite starts opens its own."""


def bare(folder: str) -> Backend:
    return Layer(PosixFS(f"{folder}/store"))


def quota(folder: str) -> Backend:
    if folder not in _ledgers:
        ledger = _ledgers[folder] = quota_place.ledger_of(Path(folder))
        ledger.open()
        ledger.set_limit("server", Limit(hard_bytes=1 << 40, hard_objects=1 << 40))
    return QuotaLayer(PosixFS(f"{folder}/store"), _ledgers[folder], quota_place.scopes)


@pytest.fixture(scope="module", params=[bare, quota], ids=["bare", "quota"])
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    folder = str(tmp_path_factory.mktemp("layer"))
    with Subject(partial(request.param, folder)) as subject:
        yield subject
    if folder in _ledgers:
        with contextlib.closing(_ledgers.pop(folder)) as ledger:
            assert quota_place.in_ledger(ledger) == {}, "the suite removed all that it stored"
            assert quota_place.nothing_reserved(ledger)


@pytest.mark.parametrize("check", checks, ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    result = check.run(subject)
    assert result.status is not Status.FAILED, result.note
