"""The suite that every backend and every stack of layers must pass.

As a command, on any URL:

    python -m backupgw.kvstore.conformance file:///srv/new-place

In a test-suite, one test a check:

    from functools import partial
    import pytest
    from backupgw.kvstore import open_place
    from backupgw.kvstore.conformance import Status, Subject, checks

    @pytest.fixture(scope="module")
    def subject():
        with Subject(partial(open_place, "mine://localhost/new-place")) as subject:
            yield subject

    @pytest.mark.parametrize("check", checks, ids=str)
    def test_conformance(check, subject):
        result = check.run(subject)
        assert result.status is not Status.FAILED, result.note
"""

from . import (  # noqa: F401 - they register their checks
    atomicity_checks,
    checkpoint_checks,
    concurrency_checks,
    failing_checks,
    keeping_checks,
    lifecycle_checks,
    listing_checks,
    naming_checks,
    operations_checks,
    ranges_checks,
    streaming_checks,
)
from .subject import Ground, Subject
from .suite import Check, Result, Status, registered, run_checks
from .verdicts import NotOffered, Violation

checks: tuple[Check, ...] = registered()
"""All checks; `str(check)` is its name."""


def run(subject: Subject) -> list[Result]:
    """Run all checks on a subject that is not open yet; the last result is the clean-up's."""
    return [*run_checks(subject, checks)]


__all__ = [
    "Check",
    "Ground",
    "NotOffered",
    "Result",
    "Status",
    "Subject",
    "Violation",
    "checks",
    "run",
    "run_checks",
]
