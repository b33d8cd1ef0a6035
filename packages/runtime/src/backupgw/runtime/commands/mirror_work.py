"""What the commands of `backupgw mirror` share: doing long work under a bar, and telling of it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..command import CommandError, Exit
from .counting import Count
from .store.output import cell, error_text, json_document, line, remark, size_text
from .store.progress import Progress, Show, State

if TYPE_CHECKING:
    from backupgw.kvstore.layers.mirror import MirrorLayer
    from backupgw.kvstore.layers.mirror_places import PlaceStatus
    from backupgw.kvstore.layers.mirror_repair import RepairReport

_SHOWN = 20
"""Names of a kind that are shown to people; --json has up to 1000."""

_KINDS = {
    "copied": "missing somewhere, copied",
    "replaced": "damaged somewhere, replaced",
    "removed": "deleted elsewhere or not wanted, removed",
    "extra": "only a new place has it; --extras says what becomes of it",
    "undecided": "the copies differ, and which is right cannot be told",
    "failed": "could not be put right now",
}
_TROUBLE = ("extra", "undecided", "failed")


@dataclass(frozen=True)
class Mirrored:
    """A mirror of the settings: the layer, not open, and what its places are called."""

    layer: MirrorLayer
    name: str
    places: list[str]

    def title(self, status: PlaceStatus) -> str:
        """Return how a place is called in messages."""
        return f"place {status.place} ({self.places[int(status.place) - 1]})"


def reason_of(status: PlaceStatus) -> str:
    """Return the reason without the place, which the row names already."""
    return status.reason.removeprefix(f"place {status.place} ({status.description}) ")


@contextmanager
def opened(mirrored: Mirrored) -> Iterator[None]:
    """Open the mirror. Raises CommandError that says what to look at."""
    from backupgw.kvstore.backends.errors import BackendError

    try:
        mirrored.layer.open()
    except BackendError as error:
        raise CommandError(
            f"{mirrored.name} cannot be opened: {error_text(error)}; "
            f"see: backupgw mirror status {mirrored.name}"
        ) from error
    try:
        yield
    finally:
        mirrored.layer.close()


def work_under_bar(
    arguments: Namespace, mirrored: Mirrored, report: RepairReport, work: Callable[[], object]
) -> int:
    """Do the work under a bar, tell what came of it, and return the exit status."""
    from backupgw.kvstore.backends.errors import BackendError

    terminal = sys.stderr.isatty() and not arguments.json
    count = Count(mirrored.layer, "", wanted=terminal)

    def state() -> State:
        return State(report.checked_bytes, report.checked, count.bytes, count.items)

    broken: BackendError | None = None
    with count, Progress(state, Show.BAR if terminal else Show.NOTHING):
        try:
            work()
        except BackendError as error:
            broken = error
    if broken is not None and not report.checked:
        raise CommandError(
            f"{mirrored.name}: {error_text(broken)}; see: backupgw mirror status {mirrored.name}"
        ) from broken
    down = [status for status in mirrored.layer.status() if status.state == "down"]
    if arguments.json:
        json_document(_document(arguments, mirrored, report, down, broken))
    else:
        _tell(arguments, mirrored, report, down, broken)
    return Exit.PARTLY if broken is not None or down or not report.whole else Exit.DONE


def _document(
    arguments: Namespace,
    mirrored: Mirrored,
    report: RepairReport,
    down: list[PlaceStatus],
    broken: Exception | None,
) -> dict[str, object]:
    kinds = {kind: getattr(report, kind) for kind in _KINDS}
    return {
        "mirror": mirrored.name,
        "dry_run": arguments.dry_run,
        "whole": report.whole
        and not down
        and broken is None
        and not _would_change(arguments, report),
        "checked": report.checked,
        "checked_bytes": report.checked_bytes,
        **{kind: {"count": tally.count, "names": tally.names} for kind, tally in kinds.items()},
        "down": [
            {"place": int(status.place), "reason": error_text(reason_of(status))} for status in down
        ],
        "broken_off": None if broken is None else error_text(broken),
    }


def _would_change(arguments: Namespace, report: RepairReport) -> bool:
    return bool(arguments.dry_run and (report.copied or report.replaced or report.removed))


def _tell(
    arguments: Namespace,
    mirrored: Mirrored,
    report: RepairReport,
    down: list[PlaceStatus],
    broken: Exception | None,
) -> None:
    for kind, text in _KINDS.items():
        tally = getattr(report, kind)
        shown = f"would be {kind}" if arguments.dry_run and kind not in _TROUBLE else text
        for name in tally.names[:_SHOWN]:
            line(f"{cell(name)}: {shown}")
        if tally.count > _SHOWN:
            line(f"and {tally.count - _SHOWN} more: {shown}")
    for status in down:
        remark(
            f"{mirrored.title(status)} is down and was left out: {error_text(reason_of(status))}"
        )
    if broken is not None:
        remark(f"broken off: {error_text(broken)}; the same command goes on with it")
    counts = [f"{getattr(report, kind).count} {kind}" for kind in _KINDS if getattr(report, kind)]
    told = ", ".join(counts) if counts else "nothing to do"
    if arguments.dry_run and counts:
        told = f"would be: {told}"
    line(f"compared {report.checked} items ({size_text(report.checked_bytes)}): {told}")
