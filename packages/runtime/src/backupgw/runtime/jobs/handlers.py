"""Which kinds of job there are, and what runs them.

A service hands its handlers to `start`:

    class CopyArguments(BaseModel):
        server: str
        backup: str

    def copy(context: JobContext, arguments: CopyArguments) -> dict[str, int]:
        size = context.step("copy", lambda: place.copy(arguments.backup))
        context.transact("note", lambda connection: note_size(connection, arguments, size))
        return {"bytes": size}

    handler = JobHandler("backup.copy", copy, CopyArguments)
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from backupgw.runtime.settings_errors import did_you_mean

from .errors import BadArguments, UnknownKind
from .records import as_json

if TYPE_CHECKING:
    from .context import JobContext

_KIND = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*\Z")


class NoArguments(BaseModel):
    """For a kind of job that has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Backoff:
    """How long a failed job waits until its next attempt.

    Attributes:
        first: seconds after the first failure.
        factor: by which each further wait is longer.
        longest: seconds, at most.
    """

    first: float = 5.0
    factor: float = 2.0
    longest: float = 600.0

    def wait(self, failures: int) -> float:
        """Return the seconds to wait after so many failures, a little different each time."""
        # An exponent that overflows a float belongs to a wait that is cut off anyway.
        plain = min(self.longest, self.first * self.factor ** min(failures - 1, 64))
        return plain * random.uniform(0.8, 1.2)  # noqa: S311


@dataclass(frozen=True)
class JobHandler:
    """A kind of job.

    Attributes:
        kind: dotted and lower case, such as "backup.copy".
        run: does the work on a thread; what it returns, JSON can hold. It is called again, from
            its beginning, when an earlier call failed or died: what must not happen twice goes
            through `context.step` or `context.transact`.
        arguments: the model that `arguments` of a job are checked against.
        attempts: how often a job may fail; the last failure is final.
        backoff: the wait between two attempts.
        limit: jobs of this kind that run at a time, all gateways together; None: no limit of its
            own.
        deadline: seconds from a job's due time until it ends as failed; None: no end.
    """

    kind: str
    run: Callable[[JobContext, Any], object]
    arguments: type[BaseModel] = NoArguments
    attempts: int = 3
    backoff: Backoff = field(default_factory=Backoff)
    limit: int | None = None
    deadline: float | None = None

    def __post_init__(self) -> None:
        if not _KIND.match(self.kind):
            raise ValueError(f"{self.kind!r} is not a kind of job; write one such as 'backup.copy'")
        if self.attempts < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"{self.kind}: attempts and limit start at 1")

    def read(self, arguments: object) -> BaseModel:
        """Return arguments as the model.

        Raises:
            BadArguments: they do not fit; the message names each mistake.
        """
        try:
            return self.arguments.model_validate(arguments)
        except ValidationError as error:
            mistakes = "; ".join(
                f"{'.'.join(str(part) for part in mistake['loc']) or 'arguments'}: {mistake['msg']}"
                for mistake in error.errors(include_input=False, include_url=False)
            )
            raise BadArguments(f"arguments of {self.kind}: {mistakes}") from None

    def write(self, arguments: BaseModel | Mapping[str, Any] | None) -> str:
        """Return arguments, checked, as JSON.

        Raises:
            BadArguments: they do not fit.
        """
        given = arguments if isinstance(arguments, self.arguments) else self.read(arguments or {})
        try:
            return as_json(given.model_dump(mode="json"), f"arguments of {self.kind}")
        except ValueError as error:
            raise BadArguments(str(error)) from error


class Handlers:
    """The handlers that a process has, by kind."""

    def __init__(self, handlers: Iterable[JobHandler] = ()) -> None:
        self._handlers: dict[str, JobHandler] = {}
        for handler in handlers:
            self.add(handler)

    def add(self, handler: JobHandler) -> None:
        """Register one.

        Raises:
            ValueError: there is another of this kind.
        """
        if self._handlers.setdefault(handler.kind, handler) is not handler:
            raise ValueError(f"there are two handlers of the kind {handler.kind!r}")

    def get(self, kind: str) -> JobHandler:
        """Return the handler of a kind.

        Raises:
            UnknownKind: there is none; the message says what there is.
        """
        if (handler := self._handlers.get(kind)) is None:
            known = sorted(self._handlers)
            hint = did_you_mean(kind, known) if known else "none is registered"
            raise UnknownKind(f"no handler runs jobs of the kind {kind!r}; {hint}")
        return handler

    def __iter__(self) -> Iterator[JobHandler]:
        return iter(self._handlers.values())

    def __len__(self) -> int:
        return len(self._handlers)
