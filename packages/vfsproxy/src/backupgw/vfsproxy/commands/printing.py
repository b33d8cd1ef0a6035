"""How the commands say what they have to say: a table, or a model's JSON."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import cell, json_document, line, size_text

if TYPE_CHECKING:
    from pydantic import BaseModel

    from backupgw.kvstore.ledger import Usage
    from backupgw.runtime.jobs import Job

    from ..core import Core


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows below their titles."""
    cells = [list(titles), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(titles))]
    for row in cells:
        parts = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        line("  ".join(parts).rstrip())


def models(found: Sequence[BaseModel]) -> None:
    """Write models as one JSON document."""
    json_document([model.model_dump(mode="json") for model in found])


def model(found: BaseModel) -> None:
    """Write a model as JSON."""
    json_document(found.model_dump(mode="json"))


def limit_text(limit: int | None, *, size: bool) -> str:
    """Return a limit for people."""
    if limit is None:
        return "-"
    return size_text(limit) if size else str(limit)


def usage_cells(usage: Usage) -> list[str]:
    """Return what is held and may be, for a table: bytes, of, files, of."""
    return [
        size_text(max(0, usage.used.bytes)),
        limit_text(usage.limit.hard_bytes, size=True),
        str(max(0, usage.used.objects)),
        limit_text(usage.limit.hard_objects, size=False),
    ]


def say(text: str) -> None:
    """Write a line about the answer."""
    print(text, file=sys.stderr)  # noqa: T201


def given(core: Core, options: Namespace, job: Job) -> int:
    """Tell of a task that has been begun; wait for its end where `--wait` says so."""
    from ..api.task_documents import task_document

    if not options.wait:
        if options.json:
            model(task_document(job))
        else:
            line(job.id)
            say("a running gateway does it; see: backupgw vfs task wait " + job.id)
        return Exit.DONE
    return wait(core, options, job.id)


def wait(core: Core, options: Namespace, task: str) -> int:
    """Follow a task to its end, with a bar on a terminal."""
    from backupgw.runtime.jobs import State

    from ..api.task_documents import task_document

    last: Job | None = None
    shown = False
    for _, job in core.tasks.jobs.watch([task]):
        last = job
        if job is not None and job.progress is not None and sys.stderr.isatty():
            print(f"\r{_bar(job)}\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201
            shown = True
    if shown:
        print(file=sys.stderr)  # noqa: T201
    if last is None:
        say(f"there is no task {task}")
        return Exit.FAILED
    if options.json:
        model(task_document(last))
    else:
        line(f"{last.state}: {last.error or last.result or ''}")
    return Exit.DONE if last.state is State.SUCCEEDED else Exit.FAILED


def _bar(job: Job) -> str:
    progress = job.progress
    assert progress is not None  # the caller has looked
    done = size_text(progress.done) if progress.unit == "bytes" else f"{progress.done:.0f}"
    unit = "" if progress.unit == "bytes" else f" {progress.unit}"
    if progress.fraction is None:
        return f"{progress.message} {done}{unit}"
    filled = round(progress.fraction * 30)
    return f"{progress.message} [{'#' * filled}{' ' * (30 - filled)}] {done}{unit}"
