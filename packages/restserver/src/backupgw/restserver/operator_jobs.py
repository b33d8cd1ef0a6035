"""What the server does by the calendar: it lets the trash expire, and verifies what is stored.

Durable jobs (docs/jobs.md): one gateway of all that serve the place runs each, a killed one is gone
on with, and `backupgw job list` shows them. Nothing of it is started where nothing is to be done.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.layers.trash_clock import ClockDoubted
from backupgw.kvstore.layers.trash_contents import Contents, Trash
from backupgw.runtime import state_folder
from backupgw.runtime.command import CommandError
from backupgw.runtime.events import Events
from backupgw.runtime.settings import Settings

from .place import has_trash, uncached
from .settings import RestSettings
from .standing_files import TRASH, VERIFIED, write_standing
from .trash_emptying import expire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backupgw.runtime.database import Database
    from backupgw.runtime.jobs import JobContext, JobHandler, Jobs, NoArguments, Schedule

    from .verify_findings import Finding

log = logging.getLogger(__name__)


def is_needed(settings: Settings) -> bool:
    """Whether there is anything to do by the calendar."""
    rest = settings.section("rest", RestSettings)
    return rest.verify.schedule is not None or (has_trash(settings) and bool(rest.trash.expire))


class OperatorJobs:
    """The jobs of one worker, running until `close`.

    Attributes:
        jobs: where they run, and can be submitted by `kind`.

    Args:
        place: open, with limits in front of it where there are some.
        events: told of jobs that end, and of damage.

    Raises:
        CommandError: the database of jobs cannot be used.
    """

    def __init__(self, settings: Settings, place: Backend, events: Events) -> None:
        # Imported late: the database takes time and memory, and many servers need none.
        from backupgw.runtime import jobs
        from backupgw.runtime.database.state import open_state

        self._settings = settings
        self._place = place
        self._events = events
        self._database: Database = open_state(settings, application="backupgw rest: jobs")
        try:
            self.jobs: Jobs = jobs.start(settings, self._database, self._handlers(), events=events)
        except BaseException:
            self._database.close()
            raise
        try:
            name = settings.section("rest", RestSettings).place
            self.jobs.set_schedules(f"rest {name}", self._schedules())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let running jobs come to the end of a step, and stop."""
        self.jobs.close()
        self._database.close()

    def _handlers(self) -> list[JobHandler]:
        from backupgw.runtime.jobs import Backoff, JobHandler

        later = Backoff(first=60.0, longest=3600.0)
        return [
            JobHandler(self.kind("verify"), self._verify, attempts=5, backoff=later, limit=1),
            JobHandler(self.kind("trash"), self._expire, attempts=5, backoff=later, limit=1),
        ]

    def _schedules(self) -> list[Schedule]:
        from backupgw.runtime.jobs import Schedule

        rest = self._settings.section("rest", RestSettings)
        wanted = {"verify": (rest.verify.schedule, rest.verify.zone)}
        if has_trash(self._settings):
            wanted["trash"] = (rest.trash.expire, rest.trash.zone)
        return [
            Schedule(name=f"rest.{what} {rest.place}", kind=self.kind(what), cron=cron, zone=zone)
            for what, (cron, zone) in wanted.items()
            if cron
        ]

    def kind(self, what: str) -> str:
        """Return the kind of a job: only gateways that serve this place may run it."""
        place = self._settings.section("rest", RestSettings).place
        # A kind has no dashes, and no two places the same.
        return f"rest.{what}.place_{place.replace('_', '_u').replace('-', '_d')}"

    # -- the trash

    def _expire(self, context: JobContext, _arguments: NoArguments) -> Mapping[str, object]:
        from backupgw.runtime.jobs import JobFailed

        try:
            removed = expire(self._place, check=context.check)
            contents = Trash(self._place).contents()
        except ClockDoubted as error:
            raise JobFailed(f"{error}: backupgw rest trash empty --clock-is-right") from error
        except BackendError as error:
            raise JobFailed(str(error), retry=True) from error
        note_trash(self._settings, contents)
        return {
            "removed": removed.items,
            "removed_bytes": removed.bytes,
            "objects": contents.items,
            "bytes": contents.bytes,
        }

    # -- verification

    def _verify(self, context: JobContext, _arguments: NoArguments) -> Mapping[str, object]:
        from backupgw.runtime.jobs import JobFailed

        from .verify_command import document, pace_of
        from .verify_objects import Stopped, Verifier
        from .verify_run import total_bytes, verify
        from .verify_state import VerifyState

        rest = self._settings.section("rest", RestSettings)
        pace = None if rest.verify.limit is None else pace_of(rest.verify.limit)
        url = self._settings.places[rest.place].url
        try:
            folder = state_folder.prepare(state_folder.find(self._settings))
            with (
                VerifyState(folder, rest.place, url, ()) as state,
                uncached(self._settings, self._place) as source,
            ):
                state.begin(restart=False)
                total = total_bytes(self._place, ())
                verify(
                    Verifier(
                        self._place, source, pace, threading.Event(), lambda: context.stopping
                    ),
                    state,
                    quarantine=rest.verify.quarantine,
                    threads=rest.verify.threads,
                    on_file=lambda _size: context.progress(
                        state.record.counts.bytes, total, unit="bytes"
                    ),
                    on_finding=self._tell,
                )
                note_verified(self._settings, document(state.record), state.record.finished)
        except Stopped:
            context.check()
            raise JobFailed("it was stopped", retry=True) from None
        except (BackendError, CommandError) as error:
            raise JobFailed(str(error), retry=True) from error
        return document(state.record)

    def _tell(self, finding: Finding) -> None:
        from .verify_findings import event_of

        event = event_of(finding, self._settings.section("rest", RestSettings).place)
        if event is not None:
            log.error("%s: %s", finding.name, finding.what)
            self._events.publish(event)


def note_trash(settings: Settings, contents: Contents) -> None:
    """Write down for the metrics how much lies in the trash."""
    _note(
        settings,
        TRASH,
        {
            "counted": time.time(),
            "objects": contents.items,
            "bytes": contents.bytes,
            "expired": contents.expired,
        },
    )


def note_verified(settings: Settings, run: Mapping[str, object], finished: float | None) -> None:
    """Write down for the metrics what a verification of the whole place has found."""
    numbers = {name: value for name, value in run.items() if isinstance(value, int)}
    _note(settings, VERIFIED, {**numbers, "finished": finished or time.time()})


def _note(settings: Settings, subject: str, numbers: Mapping[str, float]) -> None:
    try:
        write_standing(settings, subject, numbers)
    except OSError as error:
        # What was done is done; only the metrics go on showing what was before.
        log.warning("the metrics cannot be written down: %s", error)
