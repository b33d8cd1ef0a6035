"""What a command tells while it works and at its end: text and a bar on a terminal, JSON lines
elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import cell, error_text, json_line, remark, size_text
from backupgw.runtime.commands.store.progress import Progress, Show, State

Result = Literal["done", "partly", "failed", "interrupted"]

MOST_PROBLEMS = 20
"""Files that are named one by one; the rest is counted."""


@dataclass(frozen=True)
class Outcome:
    """What became of a set at a provider.

    Attributes:
        result: "partly" where it was done, but for some files.
        id: of the backup.
        files, bytes: in it.
        added: bytes that it brought anew, as they are stored.
        problems: the first files that are not in it as they should be, with the reasons.
        changed: files of an archive that somebody wrote to while they were read.
        error: why it failed, in one line without secrets.
    """

    set: str
    provider: str
    result: Result
    id: str = ""
    files: int = 0
    bytes: int = 0
    added: int = 0
    seconds: float = 0.0
    problem_count: int = 0
    problems: tuple[tuple[str, str], ...] = ()
    changed: int = 0
    error: str = ""


def exit_status(results: Iterator[Result] | list[Result]) -> Exit:
    """Return the exit status for several results: 3 where some, but not all, was done."""
    found = set(results)
    if not found or found == {"done"}:
        return Exit.DONE
    if found <= {"failed", "interrupted"}:
        return Exit.FAILED
    return Exit.PARTLY


class Amounts:
    """How far several parts of one work are, added up; set by their threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[str, State] = {}

    def set(self, part: str, state: State) -> None:
        """Say how far a part is."""
        with self._lock:
            self._parts[part] = state

    def state(self) -> State:
        """Return how far all of it is; totals only where every part knows them."""
        with self._lock:
            parts = list(self._parts.values())
        bytes_known = all(part.total_bytes is not None for part in parts) and parts
        items_known = all(part.total_items is not None for part in parts) and parts
        return State(
            bytes=sum(part.bytes for part in parts),
            items=sum(part.items for part in parts),
            total_bytes=sum(part.total_bytes or 0 for part in parts) if bytes_known else None,
            total_items=sum(part.total_items or 0 for part in parts) if items_known else None,
        )


class Reporter:
    """Where a command's words go.

    Args:
        json: JSON lines on standard output; also where that is no terminal.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json or not sys.stdout.isatty()
        self._progress: Progress | None = None

    @contextmanager
    def progress(self, state: Callable[[], State]) -> Iterator[None]:
        """Show how far it is while the block runs."""
        bar = Show.BAR if sys.stderr.isatty() else Show.NOTHING
        show = Show.LINES if self.json else bar
        with Progress(state, show) as self._progress:
            try:
                yield
            finally:
                self._progress = None

    def record(self, event: str, fields: Mapping[str, object]) -> None:
        """Tell a program; people are told by `say`."""
        if not self.json:
            return
        record = {"event": event, **fields}
        if self._progress is not None:
            self._progress.record(record)
        else:
            json_line(record)

    def say(self, text: str) -> None:
        """Tell people."""
        if self.json:
            return
        if self._progress is not None:
            self._progress.say(text)
        else:
            print(text)  # noqa: T201

    def warn(self, text: str) -> None:
        """Tell whoever reads standard error."""
        if self._progress is not None:
            self._progress.say(f"backupgw: {text}")
        else:
            remark(text)

    def problems(self, where: str, problems: tuple[tuple[str, str], ...], count: int) -> None:
        """Name what is not as it should be, the first of it one by one."""
        for path, reason in problems[:MOST_PROBLEMS]:
            self.warn(f"{where}: {cell(path)}: {error_text(reason)}")
        if count > MOST_PROBLEMS:
            self.warn(f"{where}: and {count - MOST_PROBLEMS} more")

    def outcome(self, outcome: Outcome) -> None:
        """Tell what became of a set at a provider."""
        fields = asdict(outcome)
        fields["problems"] = [
            {"path": path, "reason": reason} for path, reason in outcome.problems[:MOST_PROBLEMS]
        ]
        self.record("backup", fields)
        where = f"{outcome.set} at {outcome.provider}"
        if outcome.error:
            more = f": {outcome.error}" if outcome.error != outcome.result else ""
            self.warn(f"{where}: {outcome.result}{more}")
        else:
            self.say(
                f"{where}: {outcome.result}, {outcome.files} files, {size_text(outcome.bytes)}, "
                f"{size_text(outcome.added)} new, {outcome.seconds:.1f} s ({outcome.id})"
            )
        self.problems(where, outcome.problems, outcome.problem_count)
