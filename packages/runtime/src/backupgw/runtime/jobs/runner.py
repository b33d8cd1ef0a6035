"""Runs jobs on threads of this process, and keeps what it runs.

Two threads serve those of the handlers: `jobs` looks for work when somebody rings, when something
is due, and every `poll` seconds; `jobs-lease` renews the leases, writes progress down, passes on
who is to stop, and ends what is overdue.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from ..database import Database, DatabaseError, DatabaseUncertain
from . import claims, holding
from .attempt import Outcome, call, settle
from .claims import OVERDUE, Claim, Round, Rules
from .clock import elapsed
from .context import JobContext
from .errors import Stop
from .handlers import Handlers
from .holding import Held
from .metrics import JobMetrics
from .records import Job
from .wake import Bell

logger = logging.getLogger(__name__)

RENEWALS = 3
"""Tries to renew a lease before it ends."""
PROGRESS_EVERY = 1.0
"""Seconds between two notes of a job's progress."""
COUNT_EVERY = 15.0
"""Seconds between two counts of the jobs that wait, for metrics."""
CLEAN_EVERY = 600.0
"""Seconds between two looks for finished jobs that need not be kept."""
HAND_OVER_DEADLINE = 3.0
"""Seconds to try, at the end, to hand a job over: its lease would run out anyway."""
_AFTER_A_DEFECT = 1.0
"""Seconds, far below the time between two renewals of a lease."""
_LONGEST_PAUSE = 15.0
"""Seconds between two tries while the database is away."""


@dataclass(frozen=True)
class Limits:
    """What holds for one process.

    Attributes:
        here: jobs at a time.
        poll: seconds after which it looks for work although nobody rang.
        deadline_grace: seconds that a handler has to stop after its deadline.
        watch: whether nobody else tells of a job that is to be cancelled (SQLite).
    """

    here: int
    poll: float
    deadline_grace: float
    watch: bool


class _Running:
    """A job that runs here."""

    def __init__(self, context: JobContext, late_at: float | None) -> None:
        self.context = context
        # When it has to be told, and then when it has to have stopped.
        self.late_at = late_at
        self.overdue = False
        self.abandoned = False


class Runner:
    """Claims jobs and runs their handlers."""

    def __init__(
        self,
        database: Database,
        handlers: Handlers,
        rules: Rules,
        limits: Limits,
        bell: Bell,
        ended: Callable[[Job], None],
        clean: Callable[[], None],
    ) -> None:
        """Describe a runner; `start` runs it.

        Args:
            ended: told of each job that ends for good, from any thread.
            clean: called every now and then to remove what need not be kept.
        """
        self._database = database
        self._handlers = handlers
        self._rules = rules
        self._limits = limits
        self._bell = bell
        self._ended = ended
        self._clean = clean
        self._cleaned = float("-inf")
        self._metrics = JobMetrics()
        self._change = threading.Condition()
        self._running: dict[tuple[int, int], _Running] = {}
        self._rung = True
        self._look_at_held = False
        # Whether somebody was called off since the last look for work: perhaps what it has found.
        self._called_off = False
        self._closing = False
        self._closed = False
        self._uncertain = False
        self._counted = float("-inf")
        self._threads = [
            threading.Thread(target=self._find_work, name="jobs", daemon=True),
            threading.Thread(target=self._keep, name="jobs-lease", daemon=True),
        ]

    def start(self) -> None:
        """Start looking for work."""
        self._bell.add(self._heard)
        for thread in self._threads:
            thread.start()

    def close(self, grace: float) -> None:
        """Take no more jobs, let those that run end or hand them over.

        Args:
            grace: seconds that handlers have to come to the end of a step.
        """
        end = elapsed() + grace
        with self._change:
            if self._closing:
                return
            self._closing = True
            for running in self._running.values():
                running.context.ask_to_stop(Stop.HANDED_OVER)
            self._change.notify_all()
        self._threads[0].join(timeout=max(0.0, end - elapsed()))
        with self._change:
            self._change.wait_for(lambda: not self._running, timeout=max(0.0, end - elapsed()))
            left = list(self._running.values())
            for running in left:
                running.abandoned = True
            self._closed = True
            self._change.notify_all()
        for running in left:
            self._abandon(running)
        self._threads[1].join()

    def _abandon(self, running: _Running) -> None:
        claim = running.context.claim
        logger.warning(
            "the job %s (%s) is handed over in the middle of a step", claim.job.id, claim.job.kind
        )
        # Nothing that the handler still does may count.
        running.context.ask_to_stop(Stop.LOST)
        try:
            self._database.run(
                lambda connection: holding.hand_over(connection, claim, ended=False),
                idempotent=True,
                deadline=HAND_OVER_DEADLINE,
            )
        except DatabaseError as error:
            logger.warning("its lease runs out instead: %s", error)
        self._bell.ring("queued", claim.job.number)

    def _heard(self, change: str, _number: int | None) -> None:
        if change in ("started", "progress"):
            return
        with self._change:
            self._rung = True
            if change in ("cancel", "anything"):
                self._called_off = True
                self._look_at_held = self._look_at_held or bool(self._running)
            self._change.notify_all()

    # The thread `jobs`.

    def _find_work(self) -> None:
        pause = 0.5
        wait: float = 0.0
        while True:
            with self._change:
                self._change.wait_for(lambda: self._rung or self._closing, timeout=wait)
                if self._closing:
                    return
                self._rung = self._called_off = False
                free = self._limits.here - len(self._running)
            try:
                wait = self._look(free)
                pause = 0.5
            except DatabaseError as error:
                if pause == 0.5:
                    logger.warning("no jobs are taken for now: %s", error)
                wait, pause = pause, min(pause * 2, _LONGEST_PAUSE)
            except Exception:
                # A defect must not end the thread: jobs would wait for ever.
                logger.exception("looking for jobs failed")
                wait = _LONGEST_PAUSE

    def _look(self, free: int) -> float:
        """Look for work once, and return the seconds until the next look."""
        known: list[int] | None = None
        if self._uncertain:
            with self._change:
                known = [number for number, _ in self._running]

        def look(connection: sa.Connection) -> tuple[float, Round]:
            # Of this try: those before it may have taken longer than a lease lasts.
            begun = elapsed()
            return begun, claims.look(connection, self._handlers, self._rules, free, known)

        try:
            begun, found = self._database.run(look)
        except DatabaseUncertain:
            self._uncertain = True
            raise
        self._uncertain = False
        for claim in found.claims:
            self._begin(claim, begun)
        for kind in found.lost:
            self._metrics.died(kind)
        for job in found.ended:
            self._tell(job)
        if begun - self._counted >= COUNT_EVERY:
            with self._database.read() as connection:
                self._metrics.queued(claims.waiting(connection))
            self._counted = begun
        if begun - self._cleaned >= CLEAN_EVERY:
            self._clean()
            self._cleaned = begun
        soon = self._limits.poll if found.next_in is None else found.next_in + 0.01
        return min(self._limits.poll, soon)

    def _begin(self, claim: Claim, begun: float) -> None:
        context = JobContext(
            self._database,
            claim,
            self._rules.lease,
            begun + self._rules.lease,
            on_progress=self._progressed,
        )
        running = _Running(context, None if claim.left is None else elapsed() + claim.left)
        with self._change:
            self._running[claim.job.number, claim.epoch] = running
            self._metrics.began(claim.job.kind)
            self._look_at_held = self._look_at_held or self._called_off
            if self._closing:
                context.ask_to_stop(Stop.HANDED_OVER)
            self._change.notify_all()
        self._bell.ring("started", claim.job.number)
        threading.Thread(
            target=self._work, args=(running,), name=f"job-{claim.job.id[:16]}", daemon=True
        ).start()

    # The threads of the handlers.

    def _work(self, running: _Running) -> None:
        context = running.context
        claim = context.claim
        begun = elapsed()
        outcome = Outcome.LOST
        try:
            end = call(self._handlers.get(claim.job.kind), context)
            outcome = end.outcome
            job = None if running.abandoned else settle(self._database, context, end)
            if job is not None:
                if job.state.finished:
                    self._tell(job)
            elif not running.abandoned and not self._let_go(running):
                outcome = Outcome.LOST
                logger.warning(
                    "the job %s (%s) was taken from this process", claim.job.id, claim.job.kind
                )
        finally:
            with self._change:
                del self._running[claim.job.number, claim.epoch]
                self._metrics.ended(claim.job.kind, outcome.value, elapsed() - begun)
                self._rung = True
                self._change.notify_all()
            self._bell.ring("finished", claim.job.number)

    def _let_go(self, running: _Running) -> bool:
        """Free the key of a job that was ended as overdue while its handler ran on."""
        if not running.overdue:
            return False
        claim = running.context.claim
        try:
            self._database.run(
                lambda connection: holding.let_go(connection, claim), idempotent=True
            )
        except DatabaseError as error:
            logger.info("the key of the job %s is free in a while: %s", claim.job.id, error)
        return True

    def _tell(self, job: Job) -> None:
        self._metrics.finished(job)
        self._ended(job)
        self._bell.ring("finished", job.number)

    # The thread `jobs-lease`.

    def _progressed(self) -> None:
        with self._change:
            self._change.notify_all()

    def _keep(self) -> None:
        times = _Times()
        while True:
            with self._change:
                while not (self._closed or self._look_at_held):
                    pause = self._next(times) - elapsed()
                    if pause <= 0:
                        break
                    self._change.wait(min(pause, threading.TIMEOUT_MAX))
                if self._closed:
                    return
                current = list(self._running.values())
                asked, self._look_at_held = self._look_at_held, False
            try:
                self._keep_once(times, current, asked)
            except DatabaseError as error:
                # Each context knows by itself when its lease ends.
                logger.warning("running jobs are not kept for now: %s", error)
            except Exception:
                # A defect must not end the thread either: leases would run out under live jobs.
                logger.exception("keeping running jobs failed")
                with self._change:  # what failed may be due again at once
                    self._change.wait(_AFTER_A_DEFECT)

    def _next(self, times: _Times) -> float:
        """Return when there is something to do, by `elapsed`."""
        if not self._running:
            return float("inf")
        found = [times.renew]
        if self._limits.watch:
            found.append(times.look)
        for running in self._running.values():
            if running.context.unwritten:
                found.append(times.write)
            if running.late_at is not None and not running.overdue:
                found.append(running.late_at)
        return min(found)

    def _keep_once(self, times: _Times, current: list[_Running], asked: bool) -> None:
        period = self._rules.lease / RENEWALS
        if elapsed() >= times.renew:
            # Sooner again, should this fail.
            times.renew = elapsed() + period / 4
            self._pass_on(current, renew=True)
            times.renew = elapsed() + period
        elif asked or (self._limits.watch and elapsed() >= times.look):
            times.look = elapsed() + self._limits.poll
            self._pass_on(current, renew=False)
        self._end_overdue(current)
        if elapsed() >= times.write:
            times.write = elapsed() + PROGRESS_EVERY
            self._write_progress(current)

    def _pass_on(self, current: list[_Running], *, renew: bool) -> None:
        """Renew the leases, and let handlers know that their job is cancelled or lost."""
        lease = self._rules.lease
        numbers = [running.context.claim.job.number for running in current]

        def prolong(connection: sa.Connection) -> tuple[float, dict[tuple[int, int], Held]]:
            begun = elapsed()
            return begun, holding.renew(connection, numbers, lease)

        if renew:
            begun, found = self._database.run(prolong, idempotent=True)
        else:
            with self._database.read() as connection:
                begun, found = 0.0, holding.held(connection, numbers)
        for running in current:
            claim = running.context.claim
            held = found.get((claim.job.number, claim.epoch))
            if held is None:
                running.context.ask_to_stop(Stop.LOST)
                continue
            if held.renewed:
                running.context.lease_end = begun + lease
            if held.cancel_requested:
                running.context.ask_to_stop(Stop.CANCELLED)

    def _end_overdue(self, current: list[_Running]) -> None:
        for running in current:
            if running.late_at is None or running.overdue or elapsed() < running.late_at:
                continue
            if running.context.stop is not Stop.DEADLINE:
                running.context.ask_to_stop(Stop.DEADLINE)
                running.late_at = elapsed() + self._limits.deadline_grace
                continue
            running.overdue = True
            claim = running.context.claim
            error = f"{OVERDUE}, and its handler does not stop"
            try:
                job = self._database.run(
                    functools.partial(holding.overdue, claim=claim, error=error), idempotent=True
                )
            except DatabaseError:
                running.overdue, running.late_at = False, elapsed() + PROGRESS_EVERY
                raise
            if job is not None:
                logger.error("the job %s (%s): %s", job.id, job.kind, error)
                self._tell(job)

    def _write_progress(self, current: list[_Running]) -> None:
        for running in current:
            progress = running.context.unwritten_progress()
            if progress is None:
                continue
            claim = running.context.claim
            written = self._database.run(
                functools.partial(holding.report, claim=claim, progress=progress), idempotent=True
            )
            if written:
                self._bell.ring("progress", claim.job.number)


@dataclass
class _Times:
    """When a lease's thread does what next, by `elapsed`."""

    renew: float = 0.0
    look: float = 0.0
    write: float = 0.0
