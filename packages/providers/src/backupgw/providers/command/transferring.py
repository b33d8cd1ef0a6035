"""A batch of files with its progress and its answer, as `upload` and `sync` show them."""

from __future__ import annotations

from collections.abc import Iterable

from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import cell, error_text, line, size_text
from backupgw.runtime.commands.store.progress import Progress, Show, State
from backupgw.runtime.interrupts import attended

from ..base import BaseProvider
from ..batch import Batch, Totals
from ..crew import Crew, workers_of
from ..moves import Job, Move, Result
from .session import Session


class Transfer:
    """Moves files and tells of it: a bar on a terminal, JSON lines elsewhere.

    Args:
        verb: in the past tense: "uploaded".
        crew: processes for small files.
        verbose: tell each file on a terminal, too.
    """

    def __init__(
        self,
        session: Session,
        provider: BaseProvider,
        move: Move,
        verb: str,
        *,
        jobs: int | None = None,
        crew: Crew | None = None,
        verbose: bool = False,
    ) -> None:
        self._show = session.show
        self._verb = verb
        self._verbose = verbose
        self._batch = Batch(provider, move, workers_of(provider, jobs), self._tell, crew)
        self.total_bytes: int | None = None
        self.total_items: int | None = None
        self._progress = Progress(self._state, self._show)

    def _state(self) -> State:
        totals = self._batch.totals
        done = totals.done + totals.failed
        return State(self._batch.moved, done, self.total_bytes, self.total_items)

    def _tell(self, result: Result) -> None:
        name = cell(result.job.name)
        if result.error is not None:
            text = error_text(result.error)
            if self._show is Show.LINES:
                self._progress.record({"event": "failed", "name": result.job.name, "error": text})
            said = text.removeprefix(f"{name}: ")  # as places begin, most of the time
            self._progress.say(f"backupgw: {name}: {said}")
        elif self._show is Show.LINES:
            self._progress.record(
                {
                    "event": self._verb,
                    "name": result.job.name,
                    "size": result.size,
                    "seconds": round(result.seconds, 3),
                }
            )
        elif self._verbose:
            self._progress.say(f"{self._verb} {name}, {size_text(result.size)}")

    def say(self, record: dict[str, object], text: str) -> None:
        """Tell what else happens."""
        if self._show is Show.LINES:
            self._progress.record(record)
        elif self._verbose:
            self._progress.say(text)

    def run(self, jobs: Iterable[Job]) -> Totals:
        """Do it, to the end."""
        with self._progress:
            try:
                return attended(lambda: self._batch.run(jobs), self._batch.stop)
            except KeyboardInterrupt:
                self._progress.say("backupgw: ended; the same command carries on")
                raise

    def conclude(self, totals: Totals, **more: int) -> Exit:
        """Tell what was done, and return the exit status.

        Args:
            more: other counts, by what they are called.
        """
        gave_up = error_text(totals.gave_up) if totals.gave_up else None
        if self._show is Show.LINES:
            self._progress.record(
                {
                    "event": "done",
                    self._verb: totals.done,
                    "bytes": totals.bytes,
                    "failed": totals.failed,
                    **more,
                    "gave_up": gave_up,
                }
            )
        else:
            text = f"{self._verb} {totals.done} files ({size_text(totals.bytes)})"
            text += "".join(f", {count} {name.replace('_', ' ')}" for name, count in more.items())
            if totals.failed:
                text += f", {totals.failed} failed; the same command again carries on"
            line(text)
        if gave_up:
            self._progress.say(f"backupgw: gave up: {gave_up}")
        if not totals.failed and not totals.gave_up:
            return Exit.DONE
        return Exit.PARTLY if totals.done or any(more.values()) else Exit.FAILED
