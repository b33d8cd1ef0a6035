"""Backing up a set: to each of its providers, whatever becomes of the others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.layers.encrypt_age import Key
from backupgw.runtime.command import CommandError
from backupgw.runtime.commands.store.output import error_text
from backupgw.runtime.commands.store.progress import State
from backupgw.runtime.interrupts import attended
from backupgw.runtime.restic import BackupStatus, Message, ResticStopped, StopSignal
from backupgw.runtime.restic.commands import pattern

from . import archives
from .archive_creating import create
from .archive_writing import Counts
from .report import MOST_PROBLEMS, Amounts, Outcome, Reporter
from .restic_target import TAG, restic_at
from .settings import SetSettings
from .site import Site, Target, target
from .telling import TRIES, HookFailed, Pings, run_hook
from .tree import Selection, walk


class Run:
    """One run of one set.

    Args:
        targets: names of providers.
        stop: ends it; what is under way is given up without a trace.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        wanted: SetSettings,
        targets: Sequence[str],
        reporter: Reporter,
        stop: StopSignal,
    ) -> None:
        self._site = site
        self._name = name
        self._wanted = wanted
        self._targets = list(targets)
        self._reporter = reporter
        self._stop = stop
        self._amounts = Amounts()
        self._outcomes: dict[str, Outcome] = {}
        self._counts: Counts | None = None
        self._total: tuple[int, int] | None = None

    def run(self) -> list[Outcome]:
        """Do it, tell everybody, and return what became of it at each provider.

        Raises:
            AlreadyRunning: this set is being backed up.
            KeyboardInterrupt: it was interrupted; nothing half-done is left, and that is noted.
        """
        with self._site.status.running(self._name):
            self._note_beginning()
            pings = Pings(self._wanted.ping)
            pings.start()
            try:
                self._hook(self._wanted.before, "before")
                with self._reporter.progress(self._state):
                    self._back_up()
                for provider, outcome in self._outcomes.items():
                    if outcome.result in ("done", "partly"):
                        self._site.session.tidy(provider)
            except HookFailed as error:
                for provider in self._targets:
                    self._end(self._failed(provider, f"the command before it: {error}"))
            except BaseException:
                self._stop.set()
                for provider in self._targets:
                    if provider not in self._outcomes:
                        self._end(Outcome(self._name, provider, "interrupted", error="interrupted"))
                self._tell(pings, hurried=True)
                raise
            self._tell(pings)
            return list(self._outcomes.values())

    def _back_up(self) -> None:
        if self._wanted.format == "archive":
            self._archive()
        else:
            attended(self._all_by_restic, self._stop.set)

    def _selection(self) -> Selection:
        """Return what is backed up, without the folders that backups go to: a backup of these would
        grow by itself each time."""
        selection = self._wanted.selection()
        folders = [self._site.local_folder(provider) for provider in self._targets]
        own = [pattern(os.path.realpath(folder)) for folder in folders if folder]
        return dataclasses.replace(selection, exclude=(*selection.exclude, *own))

    # -- restic

    def _all_by_restic(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(
            min(self._site.backup.parallel, len(self._targets)), "backup"
        ) as pool:
            futures = [pool.submit(self._restic, provider) for provider in self._targets]
            try:
                for future in concurrent.futures.as_completed(futures):
                    if self._stop.is_set:
                        for each in futures:
                            each.cancel()
                    if not future.cancelled():
                        self._end(future.result())
            except BaseException:
                self._stop.set()
                raise

    def _restic(self, provider: str) -> Outcome:
        began = time.monotonic()

        def show(message: Message) -> None:
            if isinstance(message, BackupStatus):
                self._amounts.set(
                    provider,
                    State(message.bytes, message.files, message.total_bytes, message.total_files),
                )

        selection = self._selection()
        there, missing = selection.there()
        if not there:
            return self._failed(provider, _none_of(missing))
        flags: list[str | tuple[str, str]] = [("--exclude", p) for p in selection.patterns()]
        flags += [("--exclude-if-present", name) for name in selection.if_present]
        flags += ["--exclude-caches"] if selection.caches else []
        flags += ["--one-file-system"] if selection.one_file_system else []
        try:
            with (
                target(self._site, provider) as at,
                restic_at(
                    self._site, at, stop=self._stop, make=True, compression=self._wanted.compression
                ) as restic,
            ):
                result = restic.backup(
                    there,
                    tags=[f"{TAG}{self._name}"],
                    host=self._site.host,
                    flags=flags,
                    on_message=show,
                    stop=self._stop,
                )
        except ResticStopped:
            return Outcome(self._name, provider, "interrupted", error="interrupted")
        except (BackendError, CommandError, OSError) as error:
            return self._failed(provider, error)
        summary = result.summary
        packed = summary.added if summary.added_packed is None else summary.added_packed
        return Outcome(
            self._name,
            provider,
            "done" if result.complete and not missing else "partly",
            id=summary.snapshot[:8],
            files=summary.files,
            bytes=summary.bytes,
            added=packed,
            seconds=time.monotonic() - began,
            problem_count=result.error_count + len(missing),
            problems=(*missing, *((each.item, each.message) for each in result.errors)),
        )

    # -- archives

    def _archive(self) -> None:
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            places: dict[str, Target] = {}
            for provider in self._targets:
                try:
                    places[provider] = stack.enter_context(target(self._site, provider))
                except (BackendError, CommandError) as error:
                    self._end(self._failed(provider, error))
            if not places:
                return
            there, missing = self._selection().there()
            if not there:
                for provider in places:
                    self._end(self._failed(provider, _none_of(missing)))
                return
            scanned = threading.Event()
            scan = threading.Thread(target=self._scan, args=(scanned,), name="scan", daemon=True)
            try:
                key = self._key(places) if self._wanted.encrypt else None
                if not places:
                    return
                scan.start()
                make = partial(
                    create,
                    {name: each.place for name, each in places.items()},
                    self._selection(),
                    host=self._site.host,
                    set_name=self._name,
                    time=datetime.now(UTC),
                    key=key,
                    compression=self._wanted.compression,
                    threads=min(4, os.cpu_count() or 1),
                    on_counts=self._show_counts,
                    stop=self._stop,
                )
                made = attended(make, self._stop.set)
            except (BackendError, CommandError, OSError) as error:
                for provider in places:
                    self._end(self._failed(provider, error))
                return
            finally:
                scanned.set()
        counts = made.counts
        self._reporter.problems(
            self._name,
            tuple((path, "was changed while it was read") for path in counts.changed),
            len(counts.changed),
        )
        identity = made.item.rpartition("-")[2].partition(".")[0]
        for provider, failure in made.errors.items():
            if failure is not None:
                self._end(self._failed(provider, failure))
                continue
            self._end(
                Outcome(
                    self._name,
                    provider,
                    "partly" if counts.problems else "done",
                    id=identity,
                    files=counts.members,
                    bytes=counts.bytes,
                    added=counts.stored,
                    seconds=time.monotonic() - began,
                    problem_count=len(counts.problems),
                    problems=tuple(counts.problems[:MOST_PROBLEMS]),
                    changed=len(counts.changed),
                )
            )

    def _key(self, places: dict[str, Target]) -> Key | None:
        """Return the key for archives; None where no place is left.

        A place that cannot tell which archives it has is told as failed, and left out.

        Raises:
            CommandError: the key is not here.
        """
        # A new key beside archives that only the old one opens: whoever lost it must know.
        there = False
        for provider, at in list(places.items()):
            try:
                found = archives.find(at.place, host=self._site.host)
            except BackendError as error:
                self._end(self._failed(provider, error))
                del places[provider]
            else:
                there = there or any(archive.encrypted for archive in found)
        return self._site.keys.archive_key(make=not there) if places else None

    def _scan(self, enough: threading.Event) -> None:
        """Count what there is, so that the time that is left can be told."""
        files = size = 0
        with contextlib.suppress(OSError):  # the backup itself tells of it
            for found in walk(self._selection(), lambda *_: None):
                if enough.is_set():
                    return
                files += 1
                size += found.status.st_size if stat.S_ISREG(found.status.st_mode) else 0
            self._total = (size, files)

    def _show_counts(self, counts: Counts) -> None:
        self._counts = counts

    def _state(self) -> State:
        """Return how far it is: of an archive as it is made, else of the providers together."""
        if self._counts is None:
            return self._amounts.state()
        size, files = self._total or (None, None)
        return State(self._counts.bytes, self._counts.members, size, files)

    # -- what is told and noted

    def _failed(self, provider: str, error: Exception | str) -> Outcome:
        text = error_text(error).removeprefix(f"{provider}: ")  # which is told beside it
        return Outcome(self._name, provider, "failed", error=text)

    def _note_beginning(self) -> None:
        now = time.time()
        with self._site.status.changing() as status:
            for provider in self._targets:
                status.of(self._name, provider).began = now

    def _end(self, outcome: Outcome) -> None:
        self._outcomes[outcome.provider] = outcome
        now = time.time()
        with self._site.status.changing() as status:
            record = status.of(self._name, outcome.provider)
            record.ended, record.result, record.error = now, outcome.result, outcome.error
            record.seconds = round(outcome.seconds, 3)
            if outcome.result in ("done", "partly"):
                record.id, record.files, record.bytes = outcome.id, outcome.files, outcome.bytes
                record.added, record.problems = outcome.added, outcome.problem_count
            if outcome.result == "done":
                record.success = now
        self._reporter.outcome(outcome)

    def _tell(self, pings: Pings, *, hurried: bool = False) -> None:
        """Tell the health check and the operator's commands, and write the metrics.

        Args:
            hurried: somebody waits for the end; what cannot be told at once is not.
        """
        well = all(outcome.result == "done" for outcome in self._outcomes.values())
        text = "\n".join(
            f"{each.set} at {each.provider}: {each.result}" + (f": {each.error}" if each.error
            else f", {each.files} files, {each.bytes} bytes, {each.problem_count} problems")
            for each in self._outcomes.values()
        )  # fmt: skip
        tellers: list[Callable[[], None]] = [
            partial(self._hook, self._wanted.after, "after")
            if well
            else partial(self._hook, self._wanted.failed, "failed", even_stopped=True),
            partial(pings.end, well=well, text=text, tries=1 if hurried else TRIES),
            self._site.write_metrics,
        ]
        for tell in tellers:
            try:
                tell()
            except (HookFailed, CommandError) as error:
                self._reporter.warn(f"{self._name}: {error}")

    def _hook(self, command: Sequence[str], when: str, *, even_stopped: bool = False) -> None:
        if not command:
            return
        results = {each.provider: each.result for each in self._outcomes.values()}
        variables = {
            "BACKUPGW_BACKUP_SET": self._name,
            "BACKUPGW_BACKUP_WHEN": when,
            "BACKUPGW_BACKUP_PROVIDERS": " ".join(self._targets),
            "BACKUPGW_BACKUP_RESULTS": " ".join(f"{p}={r}" for p, r in results.items()),
        }
        if even_stopped and self._stop.is_set:
            with StopSignal() as never:
                run_hook(command, variables, time_limit=self._wanted.hook_time_limit, stop=never)
            return
        run_hook(command, variables, time_limit=self._wanted.hook_time_limit, stop=self._stop)


def _none_of(missing: list[tuple[str, str]]) -> str:
    gone = "; ".join(f"{path}: {reason}" for path, reason in missing)
    return f"none of the paths can be backed up: {gone}"
