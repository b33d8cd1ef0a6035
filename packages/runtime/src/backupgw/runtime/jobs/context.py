"""What a handler has in its hands while it runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..database import Database, DatabaseUnavailable
from . import holding, steps
from .claims import Claim
from .clock import elapsed
from .errors import JobStopped, Stop
from .records import Job, Progress, as_json

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")

_TRY_FOR = 5.0
"""Seconds that one try to write goes on; then the lease is looked at."""
_AGAIN_AFTER = 1.0
"""Seconds between two tries while the database is away."""


class JobContext:
    """A running job. Its methods may be called from any thread that the handler uses.

    Attributes:
        job: as it was when this attempt began.
        attempt: 1 for the first.
        unwritten: whether there is progress to write down.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        lease: float,
        lease_end: float,
        *,
        on_progress: Callable[[], None],
    ) -> None:
        """Describe a job that was claimed.

        Args:
            lease: seconds that a lease is renewed for.
            lease_end: when this one ends, by `clock.elapsed`.
            on_progress: called when there is progress to write down after there was none.
        """
        self.job: Job = claim.job
        self.attempt = claim.job.attempts
        self.claim = claim
        self.lease_end = lease_end
        self._database = database
        self._lease = lease
        self._stop: Stop | None = None
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._on_progress = on_progress
        self.unwritten = False
        self._told: list[Callable[[], None]] = []

    def progress(
        self, done: float, total: float | None = None, *, unit: str = "", message: str = ""
    ) -> None:
        """Say how far the job is; as often as wanted, it is written down once a second."""
        with self._lock:
            self._progress = Progress(done, total, unit, message)
            first, self.unwritten = not self.unwritten, True
        if first:
            self._on_progress()

    @property
    def stop(self) -> Stop | None:
        """Why the handler is to stop; None: it is not."""
        if elapsed() >= self.lease_end:
            # Nobody needs to say so: whoever could not renew a lease in time has lost it.
            self.ask_to_stop(Stop.LOST)
        return self._stop

    @property
    def cancelled(self) -> bool:
        """Whether the work is not wanted any more: cancelled, too late, or taken over by others."""
        return self.stop not in (None, Stop.HANDED_OVER)

    @property
    def stopping(self) -> bool:
        """Whether the handler is to end soon, also because the process is stopping."""
        return self.stop is not None

    def check(self) -> None:
        """Raise JobStopped where the handler is to stop."""
        if (reason := self.stop) is not None:
            raise JobStopped(reason)

    def wait(self, seconds: float) -> bool:
        """Wait, but not longer than until the handler is to stop; return whether it is."""
        self._asked.wait(max(0.0, min(seconds, self.lease_end - elapsed())))
        return self.stopping

    def once(self, name: str) -> str:
        """Return a text that is the same in every attempt of this job and in no other job's.

        Other systems' interfaces take one as a request's idempotency key.
        """
        return f"{self.job.id}/{name}"

    def step(self, name: str, call: Callable[[], T], *, unsure: Callable[[], T] | None = None) -> T:
        """Return what `call` returns, now or in the attempt that did this step.

        Without `unsure`, a step is repeated when the process died before it was noted as done:
        `call` must bear that. With `unsure`, an attempt that finds the step begun, and not known to
        be done, calls `unsure` instead: it finds out what has become of it, and does the rest.

        Args:
            name: unique within the job, the same in each attempt.
            call: returns what JSON can hold; what `step` returns has been through JSON.

        Raises:
            JobStopped: the job is to stop; `call` was not called, or what it did is not noted.
            ValueError: JSON cannot hold what `call` returned.
        """
        self.check()
        known = self._run(lambda connection: steps.find(connection, self.claim, name))
        if known is not None and known.done:
            return known.value  # type: ignore[no-any-return]
        doing = call
        if unsure is not None:
            if known is not None:
                doing = unsure
            self._run(lambda connection: self._put(connection, name, None))
        value = doing()
        text = as_json(value, f"what the step {name!r} returned")
        self._run(lambda connection: self._put(connection, name, text))
        return json.loads(text)  # type: ignore[no-any-return]

    def transact(self, name: str, work: Callable[[sa.Connection], T]) -> T:
        """Change the gateway's own database exactly once, as a step.

        `work` and the note that it is done are one transaction: both happen or neither. It may be
        called again when the transaction has to be repeated, and is quick, since it keeps others
        from writing.

        Raises:
            JobStopped: the job is to stop; nothing was changed.
            ValueError: JSON cannot hold what `work` returned.
        """
        self.check()

        def transaction(connection: sa.Connection) -> T:
            if not holding.confirm(connection, self.claim, self._lease):
                self._lost()
            known = steps.find(connection, self.claim, name)
            if known is not None and known.done:
                return known.value  # type: ignore[no-any-return]
            text = as_json(work(connection), f"what the step {name!r} returned")
            steps.put(connection, self.claim, name, value=text)
            return json.loads(text)  # type: ignore[no-any-return]

        return self._run(transaction)

    def ask_to_stop(self, reason: Stop) -> None:
        """Let the handler know that it is to stop; the most urgent of several reasons counts."""
        with self._lock:
            if self._stop in (None, Stop.HANDED_OVER) or reason is Stop.LOST:
                self._stop = reason
            told, self._told = self._told, []
        self._asked.set()
        for call in told:
            call()

    def on_stop(self, call: Callable[[], None]) -> None:
        """Call `call` once when the handler is asked to stop, from another thread; at once where it
        was asked already. A program that the handler waits for is ended this way.

        A lease that runs out without a word is found by `stop` alone.
        """
        with self._lock:
            asked = self._stop is not None
            if not asked:
                self._told.append(call)
        if asked:
            call()

    def unwritten_progress(self) -> Progress | None:
        """Return the progress that was not written down yet, once."""
        with self._lock:
            if not self.unwritten:
                return None
            self.unwritten = False
            return self._progress

    @property
    def last_progress(self) -> Progress | None:
        """What the handler said last."""
        return self._progress

    def _put(self, connection: sa.Connection, name: str, text: str | None) -> None:
        if not holding.confirm(connection, self.claim, self._lease):
            self._lost()
        steps.put(connection, self.claim, name, value=text)

    def _lost(self) -> None:
        # Ended as too late, it is this runner's still; the reason is known then.
        reason = self._stop if self._stop is Stop.DEADLINE else Stop.LOST
        self.ask_to_stop(reason)
        raise JobStopped(reason)

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run a transaction, and wait for a database that is away until the lease ends."""
        while True:
            try:
                return self._database.run(work, idempotent=True, deadline=_TRY_FOR)
            except DatabaseUnavailable:
                if elapsed() >= self.lease_end:
                    self._lost()
                # Not `wait`: what was done is to be noted although the handler is to stop.
                threading.Event().wait(max(0.0, min(_AGAIN_AFTER, self.lease_end - elapsed())))
