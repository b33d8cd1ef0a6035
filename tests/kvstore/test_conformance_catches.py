"""The conformance suite notices a backend that breaks a promise, and names the promise."""

from __future__ import annotations

import pytest
from tests.kvstore import broken_keepers  # noqa: F401 - more that is caught
from tests.kvstore.broken_places import Wrapping, caught_by

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.conformance import Check, Status, Subject, checks

BY_NAME = {check.name: check for check in checks}
PATIENCE = 3
"""Seconds; a backend that holds others up fails after this."""


@pytest.mark.parametrize(
    ("check", "backend"), caught_by, ids=[f"{b.__name__}-{c}" for c, b in caught_by]
)
def test_a_broken_promise_is_noticed(check: str, backend: type[Backend]) -> None:
    with Subject(Wrapping) as sound:
        assert BY_NAME[check].run(sound).status is Status.OK
    subject = Subject(backend, patience=PATIENCE)
    subject.backend.create()
    subject.backend.open()
    subject.owned = True
    subject.backend.mkdir(subject.root)
    result = BY_NAME[check].run(subject)
    assert result.status is Status.FAILED
    assert result.note


def test_every_check_that_runs_in_memory_was_seen_to_fail() -> None:
    with Subject(Wrapping) as subject:
        runs = {check.name for check in checks if _runs(check, subject)}
    assert runs == {check for check, _ in caught_by}


def _runs(check: Check, subject: Subject) -> bool:
    return check.run(subject).status is Status.OK
