"""`backupgw job`: list, show, cancel and watch jobs."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..command import Command, CommandError, Exit, add_json_option, global_options, whole_number

if TYPE_CHECKING:
    from ..jobs import Job, Jobs

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
_BAR = 20


def configure(parser: ArgumentParser) -> None:
    """Add the four subcommands."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)
    options = [global_options()]
    listing = verbs.add_parser("list", parents=options, help="list jobs, the latest first")
    listing.add_argument(
        "--state",
        action="append",
        choices=STATES,
        help="only jobs in this state; may be given again",
    )
    listing.add_argument("--kind", help="only jobs of this kind")
    listing.add_argument("--key", help="only jobs of this key")
    listing.add_argument(
        "--limit",
        type=whole_number(1, 1_000_000),
        default=50,
        metavar="N",
        help="how many; default %(default)s",
    )
    add_json_option(listing)
    show = verbs.add_parser("show", parents=options, help="tell all that is known of a job")
    show.add_argument("id")
    add_json_option(show)
    cancel = verbs.add_parser(
        "cancel",
        parents=options,
        help="cancel jobs",
        description="Cancel jobs that wait, and ask those that run to stop.",
    )
    cancel.add_argument("ids", nargs="+", metavar="id")
    cancel.add_argument("--dry-run", action="store_true", help="only say what would be cancelled")
    add_json_option(cancel)
    watch = verbs.add_parser(
        "watch",
        parents=options,
        help="follow jobs until they have finished",
        description="Follow jobs until they have finished; without ids all that have not. Exit "
        "status: 0 all succeeded, 3 some, 1 none.",
    )
    watch.add_argument("ids", nargs="*", metavar="id")
    add_json_option(watch)


def run(arguments: Namespace) -> int:
    """Do what the verb says."""
    with _jobs(arguments) as jobs:
        match arguments.verb:
            case "list":
                return _list(jobs, arguments)
            case "show":
                return _show(jobs, arguments)
            case "cancel":
                return _cancel(jobs, arguments)
            case _:
                return _watch(jobs, arguments)


@contextlib.contextmanager
def _jobs(arguments: Namespace) -> Iterator[Jobs]:
    from ..database.state import open_state
    from ..jobs import Jobs
    from ..settings import load
    from ..settings_jobs import JobsSettings

    settings = load(arguments.config, serving=())
    options = settings.section("jobs", JobsSettings)
    with (
        open_state(settings, application="backupgw job") as database,
        Jobs(database, settings=options) as jobs,
    ):
        yield jobs


def _find(jobs: Jobs, job_id: str) -> Job:
    from ..jobs import UnknownJob

    try:
        return jobs.find(job_id)
    except UnknownJob as error:
        raise CommandError(f"{error}; see: backupgw job list") from error


def _list(jobs: Jobs, arguments: Namespace) -> int:
    from ..jobs import State

    found = jobs.list(
        states=[State(state) for state in arguments.state or ()],
        kind=arguments.kind,
        key=arguments.key,
        limit=arguments.limit,
    )
    if arguments.json:
        _print_json([job.document() for job in found])
        return Exit.DONE
    titles = ("id", "kind", "key", "state", "tries", "created", "took", "what")
    rows: list[tuple[str, ...]] = [titles]
    rows += [_row(job) for job in found]
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())  # noqa: T201
    if len(found) == arguments.limit:
        print(f"the latest {len(found)}; --limit shows more", file=sys.stderr)  # noqa: T201
    return Exit.DONE


def _row(job: Job) -> tuple[str, ...]:
    started, finished = job.started, job.finished
    took = "-" if started is None or finished is None else _duration(finished - started)
    cells = (job.id, job.kind, job.key, job.state.value, job.attempts, _time(job.created), took)
    return tuple(_cell(cell) for cell in (*cells, _what(job)))


def _what(job: Job) -> str:
    """What matters most about a job, in a line."""
    if job.state.value == "running":
        asked = "asked to stop; " if job.cancel_requested else ""
        return asked + _progress(job)
    if job.error is not None:
        again = "last attempt: " if not job.state.finished else ""
        return again + (job.error if len(job.error) <= 100 else f"{job.error[:99]}…")
    return f"due {_time(job.due)}" if job.state.value == "queued" and job.due > time.time() else ""


def _show(jobs: Jobs, arguments: Namespace) -> int:
    job = _find(jobs, arguments.id)
    document = job.document()
    if arguments.json:
        _print_json(document)
        return Exit.DONE
    for name, value in document.items():
        if name == "progress":
            text = _progress(job)
        elif isinstance(value, dict | list):
            text = json.dumps(value, ensure_ascii=False)
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        else:
            text = _cell(value)
        print(f"{name.replace('_', ' ') + ':':<17} {_cell(text)}")  # noqa: T201
    return Exit.DONE


def _cancel(jobs: Jobs, arguments: Namespace) -> int:
    from ..jobs import UnknownJob

    documents: list[dict[str, Any]] = []
    failed = 0
    for job_id in dict.fromkeys(arguments.ids):
        try:
            before = jobs.find(job_id)
            job = before if arguments.dry_run else jobs.cancel(job_id)
        except UnknownJob as error:
            print(f"backupgw: {error}", file=sys.stderr)  # noqa: T201
            failed += 1
            continue
        if before.state.finished:
            was = f"{'is' if job.state.value == 'cancelled' else 'has'} {job.state.value}"
            print(f"backupgw: the job {job.id} {was} already", file=sys.stderr)  # noqa: T201
            failed += 1
            continue
        documents.append(job.document())
        if not arguments.json:
            waits = before.state.value == "queued"
            verb = "would cancel" if arguments.dry_run else "cancelled"
            if not waits:
                verb = "would ask to stop" if arguments.dry_run else "asked to stop"
            print(f"{verb} {job.id} ({job.kind})")  # noqa: T201
    if arguments.json:
        _print_json({"cancelled": documents, "dry_run": arguments.dry_run})
    if not failed:
        return Exit.DONE
    return Exit.PARTLY if documents else Exit.FAILED


def _watch(jobs: Jobs, arguments: Namespace) -> int:
    from ..jobs import State

    ids = list(dict.fromkeys(arguments.ids))
    if not ids:
        unfinished = (State.QUEUED, State.RUNNING)
        ids = [job.id for job in jobs.list(states=unfinished, limit=1000)]
    outcomes: dict[str, bool] = {}
    live = _Live() if sys.stdout.isatty() and not arguments.json else None
    try:
        for job_id, job in jobs.watch(ids):
            if job is None:
                # On a line of its own, below the bars.
                print(f"backupgw: there is no job {job_id}", file=sys.stderr)  # noqa: T201
                outcomes[job_id] = False
                continue
            if job.state.finished:
                outcomes[job_id] = job.state is State.SUCCEEDED
            if arguments.json:
                print(json.dumps(job.document(), ensure_ascii=False), flush=True)  # noqa: T201
            elif live is not None:
                live.show(job)
            else:
                print(f"{_time(time.time())} {_line(job)}", flush=True)  # noqa: T201
    finally:
        if live is not None:
            live.end()
    succeeded = sum(outcomes.values())
    if succeeded == len(ids):
        return Exit.DONE
    return Exit.PARTLY if succeeded else Exit.FAILED


class _Live:
    """A line for each unfinished job at the end of the terminal, drawn again when it changes."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._drawn = 0

    def show(self, job: Job) -> None:
        self._erase()
        if job.state.finished:
            self._lines.pop(job.id, None)
            print(_line(job))  # noqa: T201
        else:
            self._lines[job.id] = _line(job)
        self._draw()

    def end(self) -> None:
        self._erase()
        sys.stdout.flush()

    def _erase(self) -> None:
        if self._drawn:
            # Up, to the beginning of the line, and away with everything below.
            sys.stdout.write(f"\x1b[{self._drawn}F\x1b[J")
        self._drawn = 0

    def _draw(self) -> None:
        import shutil

        size = shutil.get_terminal_size()
        room = max(1, size.lines - 2)
        lines = list(self._lines.values())
        shown = lines[:room] if len(lines) <= room else lines[: room - 1]
        if len(shown) < len(lines):
            shown.append(f"and {len(lines) - len(shown)} more")
        for line in shown:
            # A line that wraps would be two to erase.
            print(line[: size.columns - 1])  # noqa: T201
        self._drawn = len(shown)
        sys.stdout.flush()


def _line(job: Job) -> str:
    subject = f"{job.id} {job.kind}" + (f" {job.key}" if job.key else "")
    what = _what(job)
    return _cell(f"{subject}: {job.state.value}" + (f", {what}" if what else ""))


def _progress(job: Job) -> str:
    progress = job.progress
    if progress is None:
        return "-"
    total = progress.total
    amount = _amount(progress.done, progress.unit)
    if total is not None:
        amount = f"{amount} of {_amount(total, progress.unit)}"
    fraction = progress.fraction
    bar = ""
    if fraction is not None:
        full = int(fraction * _BAR)
        bar = f"[{'#' * full}{'.' * (_BAR - full)}] {fraction:.0%} "
    return f"{bar}{amount} {progress.message}".rstrip()


def _amount(value: float, unit: str) -> str:
    if unit != "bytes":
        return f"{value:g} {unit}".rstrip()
    for name in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {name}" if name == "B" else f"{value:.1f} {name}"
        value /= 1024
    return f"{value:.1f} TiB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(0.0, seconds):.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cell(value: object) -> str:
    text = "-" if value is None else str(value)
    # An error with a line break would look like another job's row.
    return "".join(char if char.isprintable() else "?" for char in text)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201


command = Command(
    name="job", help="list, show, cancel and watch jobs", configure=configure, run=run
)
