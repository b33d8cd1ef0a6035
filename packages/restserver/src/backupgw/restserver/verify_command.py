"""`backupgw rest verify`: re-hash what is stored, without any password, and report the damage."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING

from backupgw.runtime.command import CommandError, Exit, UsageError, add_json_option

from .amounts import plain, size_text
from .moments import minute, stamp

if TYPE_CHECKING:
    from backupgw.kvstore.layers.throttle_rate import Pace
    from backupgw.runtime.events import Events
    from backupgw.runtime.settings import Settings

    from .verify_findings import Counts, Finding
    from .verify_state import Record, VerifyState


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Read every stored object and compare it with its name, which is its SHA-256. What is "
        "damaged is set aside, never deleted. A run that was broken off is gone on with."
    )
    parser.add_argument(
        "patterns", nargs="*", metavar="REPO", help="only these: ann/laptop, 'ann/*', '**'"
    )
    parser.add_argument("--path", metavar="DIR", help="folder of the repositories")
    parser.add_argument("--limit", metavar="RATE", help='read no faster: "50 MB/s"')
    parser.add_argument(
        "--no-quarantine", action="store_true", help="only report; leave everything where it is"
    )
    parser.add_argument(
        "--restart", action="store_true", help="begin anew where a run was broken off"
    )
    parser.add_argument(
        "--last", action="store_true", help="show what the last run has found, and read nothing"
    )
    parser.add_argument("--threads", metavar="N", type=int, help="files read at a time")
    add_json_option(parser)


def run(options: Namespace) -> int:
    """Verify, print what was found, return the exit status."""
    from backupgw.runtime import state_folder
    from backupgw.runtime.settings import load

    from .cli import place_overrides
    from .place import refuse_foreign_user
    from .settings import RestSettings
    from .verify_state import VerifyState

    if any(not pattern.strip("/") for pattern in options.patterns):
        raise UsageError("a pattern is not empty; ** means all repositories")
    if options.threads is not None and not 1 <= options.threads <= 64:
        raise UsageError("--threads is from 1 to 64")
    pace = None if options.limit is None else pace_of(options.limit)
    settings = load(options.config, place_overrides(options.path))
    rest = settings.section("rest", RestSettings)
    if not options.no_quarantine and not options.last:
        refuse_foreign_user(settings)
    folder = state_folder.prepare(state_folder.find(settings))
    state = VerifyState(folder, rest.place, settings.places[rest.place].url, options.patterns)
    if options.last:
        return _show_last(options, settings, state)
    with state:
        return _verify(options, settings, state, pace)


def pace_of(rate: str) -> Pace:
    """Return a pace from "50 MB/s" or a timetable.

    Raises:
        UsageError: it is neither.
    """
    from backupgw.kvstore.layers.options import OptionInvalid
    from backupgw.kvstore.layers.throttle_rate import Pace, timetable

    try:
        return Pace(timetable("--limit", rate))
    except OptionInvalid as error:
        raise UsageError(str(error)) from error


def _show_last(options: Namespace, settings: Settings, state: VerifyState) -> int:
    from .identification import place_folder

    last = state.last()
    if last is None:
        folder = place_folder(settings)
        if folder is not None and not folder.exists():
            raise CommandError(f"{folder} does not exist")
        over = ", ".join(options.patterns) or "all repositories"
        raise CommandError(
            f"there was no run over {over} yet; the same command without --last makes one"
        )
    state.record = last
    if not options.json:
        for finding in state.findings():
            print(line(finding))  # noqa: T201
    _report(options, state, resumed=False)
    return status(last.counts)


def _verify(options: Namespace, settings: Settings, state: VerifyState, pace: Pace | None) -> int:
    import threading

    from backupgw.runtime.interrupts import attended

    from .place import opened, uncached
    from .progress import Progress
    from .verify_objects import Verifier
    from .verify_run import THREADS, fitting_nothing, total_bytes, verify

    with ExitStack() as stack:
        place = stack.enter_context(opened(settings))
        unknown = fitting_nothing(place, options.patterns)
        if unknown:
            raise CommandError(
                f"there is no repository {', '.join(map(plain, unknown))}; nothing was verified. "
                "backupgw rest repos lists what there is"
            )
        resumed = state.begin(restart=options.restart)
        if resumed and not options.json:
            print(  # noqa: T201
                f"backupgw: going on with the run of {minute(state.record.began)}, of which "
                f"{state.record.counts.objects} files are done; --restart begins anew",
                file=sys.stderr,
            )
        source = stack.enter_context(uncached(settings, place))
        total = 0
        if sys.stderr.isatty() and not options.json:
            total = total_bytes(place, options.patterns)
        progress = stack.enter_context(Progress(total, quiet=options.json))
        progress.begin_at(state.record.counts.objects, state.record.counts.bytes)
        tell = _Teller(settings, stack)

        def found(finding: Finding) -> None:
            if not options.json:
                progress.say(line(finding))
            tell(finding)

        verifier = Verifier(place, source, pace, threading.Event())

        def work() -> None:
            verify(
                verifier,
                state,
                quarantine=not options.no_quarantine,
                threads=options.threads or THREADS,
                on_file=progress.step,
                on_finding=found,
            )

        attended(work, verifier.stop.set)
    if not options.patterns:
        from .operator_jobs import note_verified

        note_verified(settings, document(state.record), state.record.finished)
    _report(options, state, resumed=resumed)
    return status(state.record.counts)


class _Teller:
    """Publishes what was found as events; starts them with the first."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._events: Events | None = None

    def __call__(self, finding: Finding) -> None:
        from backupgw.runtime.events import start_gateway

        from .settings import RestSettings
        from .verify_findings import event_of

        event = event_of(finding, self._settings.section("rest", RestSettings).place)
        if event is None:
            return
        if self._events is None:
            self._events = self._stack.enter_context(start_gateway(self._settings))
        self._events.publish(event)


def status(counts: Counts) -> int:
    """Return the exit status: damage weighs more than what could not be read."""
    if counts.harmed:
        return Exit.FAILED
    return Exit.PARTLY if counts.unreadable else Exit.DONE


def line(finding: Finding) -> str:
    """Return a problem as a line for people."""
    kept = "" if finding.kept is None else f"; set aside as {finding.kept}"
    return plain(f"{finding.problem.value}: {finding.name}: {finding.what}{kept}")


def document(record: Record) -> dict[str, object]:
    """Return a run as JSON's values, without the problems themselves."""
    counts = record.counts
    return {
        "place": record.place,
        "repositories": record.repositories or None,
        "began": stamp(record.began),
        "finished": stamp(record.finished),
        "files": counts.objects,
        "bytes": counts.bytes,
        "damaged": counts.damaged,
        "misplaced": counts.misplaced,
        "unreadable": counts.unreadable,
        "foreign": counts.foreign,
    }


def _report(options: Namespace, state: VerifyState, *, resumed: bool) -> None:
    record = state.record
    if options.json:
        found = document(record) | {"resumed": resumed}
        text = json.dumps(found, indent=2, ensure_ascii=False).removesuffix("\n}")
        sys.stdout.write(f'{text},\n  "problems": [')
        separator = ""
        for finding in state.findings():
            sys.stdout.write(
                f"{separator}\n    {json.dumps(finding.document(), ensure_ascii=False)}"
            )
            separator = ","
        sys.stdout.write("\n  ]\n}\n" if separator else "]\n}\n")
        return
    counts = record.counts
    parts = [
        f"{number} {what}"
        for number, what in (
            (counts.damaged, "damaged"),
            (counts.misplaced, "misplaced"),
            (counts.unreadable, "unreadable"),
            (counts.foreign, "that are not restic's"),
        )
        if number
    ]
    ended = "" if record.finished is not None else "; it was broken off"
    print(  # noqa: T201
        f"{counts.objects} files, {size_text(counts.bytes)}: "
        f"{', '.join(parts) or 'all hold what their names say'}{ended}"
    )
