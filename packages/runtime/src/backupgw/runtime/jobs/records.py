"""What is known of a job."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

LONGEST = 1 << 20
"""Characters of JSON of a job's arguments, of its result and of a step's value."""


class State(enum.StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether it stays so."""
        return self not in (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is.

    Attributes:
        done, total: in `unit`; total is None where nobody knows it.
        unit: "bytes", "files" …; empty for a plain count.
        message: what it is doing, in a line.
    """

    done: float = 0
    total: float | None = None
    unit: str = ""
    message: str = ""

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None where the total is unknown."""
        return None if not self.total else max(0.0, min(1.0, self.done / self.total))

    def document(self) -> dict[str, Any]:
        """Return it as JSON's values."""
        return {
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the database has it. Times are seconds since the epoch by the database's clock.

    Attributes:
        number: in the order of submission.
        id: the caller's own, or a random one.
        kind: which handler runs it.
        key: only one job of a key runs at a time, and they run in order; None: as it comes.
        arguments: what the handler's model was made from.
        due: before this it does not start.
        deadline: when it ends as failed if it has not finished; None: never.
        started: when its last attempt began.
        attempts: how often it was started, but for what was handed over.
        losses: how many of these ended without a word: the process was killed, or cut off.
        cancel_requested: a running job was asked to stop.
        runner: the gateway and process that ran it last.
        result: what its handler returned.
        error: why it failed, or why its last attempt did, in a line.
        schedule: the name of the schedule that submitted it.
        version: grows with every change.
    """

    number: int
    id: str
    kind: str
    key: str | None
    state: State
    arguments: Mapping[str, Any]
    created: float
    due: float
    deadline: float | None
    started: float | None
    finished: float | None
    attempts: int
    losses: int
    cancel_requested: bool
    runner: str | None
    progress: Progress | None
    result: Any
    error: str | None
    schedule: str | None
    version: int

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON's values, times in ISO 8601."""
        return {
            "id": self.id,
            "kind": self.kind,
            "key": self.key,
            "state": self.state.value,
            "arguments": dict(self.arguments),
            "created": moment(self.created),
            "due": moment(self.due),
            "deadline": moment(self.deadline),
            "started": moment(self.started),
            "finished": moment(self.finished),
            "attempts": self.attempts,
            "losses": self.losses,
            "cancel_requested": self.cancel_requested,
            "runner": self.runner,
            "progress": None if self.progress is None else self.progress.document(),
            "result": self.result,
            "error": self.error,
            "schedule": self.schedule,
        }


def moment(seconds: float | None) -> str | None:
    """Return a time as text, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_json(value: object, what: str) -> str:
    """Return `value` as JSON.

    Args:
        what: its name in messages.

    Raises:
        ValueError: JSON cannot hold it, or it is longer than LONGEST.
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} cannot be written as JSON: {error}") from error
    if len(text) > LONGEST:
        raise ValueError(f"{what} takes {len(text)} characters of JSON; {LONGEST} are allowed")
    return text
