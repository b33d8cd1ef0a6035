"""Checks, and how they are run."""

from __future__ import annotations

import enum
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..backends.base import Capabilities
from ..backends.errors import QuotaExceeded
from .subject import Ground, Subject
from .verdicts import NotOffered, Violation

CheckFunction = Callable[[Ground], str | None]


class Status(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    FAILED = "failed"
    NOT_OFFERED = "not offered"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Attributes:
        milliseconds: that the check took.
        full: it failed because the place has no room for it. That breaks no promise, and keeps
            none: it has to be tried again.
    """

    check: str
    status: Status
    milliseconds: float
    note: str
    full: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One promise.

    Attributes:
        name: `subject.promise`; stable, for choosing and for test ids.
        promise: one sentence.
        needs: the capabilities without which there is nothing to check.
        own_place: runs only in a place that the suite has created.
    """

    name: str
    promise: str
    function: CheckFunction
    needs: tuple[str, ...] = ()
    own_place: bool = False

    def __str__(self) -> str:
        return self.name

    def why_not(self, subject: Subject) -> str | None:
        """Return why there is nothing to check here, None if there is."""
        capabilities: Capabilities = subject.backend.capabilities
        for need in self.needs:
            if not getattr(capabilities, need):
                return f"capabilities.{need} is False"
        if self.own_place and not subject.owned:
            return "needs a place of its own: give a URL where nothing exists yet"
        return None

    def run(self, subject: Subject) -> Result:
        """Run the check in an open subject. Never raises for what the backend does."""
        start = time.perf_counter()
        note = self.why_not(subject)
        status = Status.OK if note is None else Status.NOT_OFFERED
        full = False
        if status is Status.OK:
            try:
                note = self.function(subject.ground())
            except NotOffered as reason:
                status, note = Status.NOT_OFFERED, str(reason)
            except Violation as violation:
                status, note = Status.FAILED, str(violation)
            except QuotaExceeded as error:
                status, note, full = Status.FAILED, f"no room for it: {error}", True
            except Exception as error:  # noqa: BLE001 - whatever a backend lets out is its failure
                status, note = Status.FAILED, _describe(error)
        took = (time.perf_counter() - start) * 1000
        return Result(self.name, status, took, note or "", full)


_registered: list[Check] = []


def check(*needs: str, own_place: bool = False) -> Callable[[CheckFunction], CheckFunction]:
    """Register a check: module `…_checks` and function name make its name, the docstring's first
    line its promise."""

    def register(function: CheckFunction) -> CheckFunction:
        group = function.__module__.rpartition(".")[2].removesuffix("_checks")
        promise = (function.__doc__ or "").strip().partition("\n")[0]
        name = f"{group}.{function.__name__}"
        _registered.append(Check(name, promise, function, needs, own_place))
        return function

    return register


def registered() -> tuple[Check, ...]:
    """Return the checks registered so far, in the order of their definition."""
    return tuple(_registered)


def run_checks(subject: Subject, checks: Sequence[Check]) -> Iterator[Result]:
    """Open the subject, yield one result a check, and clean up; that is the last result."""
    status, note = Status.OK, ""
    try:
        # Within the block: Ctrl-C may come when it has just returned.
        subject.__enter__()
        for each in checks:
            yield each.run(subject)
    finally:
        start = time.perf_counter()
        try:
            subject.leave()
        except Exception as error:  # noqa: BLE001 - whatever a backend lets out is its failure
            status, note = Status.FAILED, _describe(error)
    yield Result("cleanup", status, (time.perf_counter() - start) * 1000, note)


def _describe(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
    return f"{type(error).__name__}: {error} (at {place})"
