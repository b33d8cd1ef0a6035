"""`backupgw store copy`: shows what `backupgw.kvstore.copying` does."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from ...command import CommandError, Exit, UsageError
from ..counting import Count
from .location import Location, Places
from .output import cell, error_text, line, size_text
from .progress import Progress, Show, State

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend, ItemInfo
    from backupgw.kvstore.copying import Copied, Totals


def copy(arguments: Namespace, places: Places) -> int:
    """Copy an item, or what is below a folder, from any place to any place."""
    from backupgw.kvstore.copying import Compare, Copy, Outcome, Side

    from ...interrupts import attended

    source, target = places.locate(arguments.source), places.locate(arguments.target)
    origin = places.open(source)
    info = origin.info(source.path)
    if not info.exists:
        raise CommandError(f"{source}: there is no such item or folder")
    if source.folder and not info.directory:
        raise CommandError(f"{source}/: is an item, no folder; leave the / out")
    _check_apart(places, source, target, folder=info.directory)
    destination = places.open(target, create=arguments.create and not arguments.dry_run, offer=True)
    name = _new_name(destination, source, target, info)

    def tell(item: Copied) -> None:
        shown = cell(source.at(item.name))
        if item.outcome is Outcome.FAILED:
            if lines:
                progress.record(
                    {"event": "failed", "name": item.name, "error": error_text(item.message)}
                )
            progress.say(f"backupgw: {shown}: {error_text(item.message)}")
        elif item.outcome is Outcome.COPIED and (arguments.verbose or arguments.dry_run):
            verb = "would copy" if arguments.dry_run else "copied"
            if lines:
                event = verb.replace(" ", "_")
                progress.record({"event": event, "name": item.name, "size": item.size})
            else:
                progress.say(f"{verb} {shown}, {size_text(item.size)}")

    work = Copy(
        Side(origin, source.path),
        Side(destination, name),
        workers=arguments.jobs,
        compare=Compare(arguments.compare),
        verify=arguments.verify,
        dry_run=arguments.dry_run,
        on_item=tell,
    )
    terminal = sys.stderr.isatty() and sys.stdout.isatty() and not arguments.json
    lines = not terminal
    count = Count(origin, source.path, wanted=info.directory)
    if not info.directory:
        count.bytes, count.items = info.size, 1

    def state() -> State:
        totals = work.totals
        items = totals.copied + totals.present + totals.gone + totals.failed
        return State(work.moved, items, count.bytes, count.items)

    with count, Progress(state, Show.BAR if terminal else Show.LINES) as progress:
        totals = attended(work.run, work.stop)
    if lines:
        progress.record(_record(arguments, totals))
    else:
        line(_summary(arguments, totals))
    return _status(totals)


def _status(totals: Totals) -> Exit:
    if not totals.failed and not totals.gave_up:
        return Exit.DONE
    return Exit.PARTLY if totals.copied or totals.present else Exit.FAILED


def _record(arguments: Namespace, totals: Totals) -> dict[str, object]:
    return {
        "event": "done",
        "copied": totals.copied,
        "copied_bytes": totals.copied_bytes,
        "present": totals.present,
        "present_bytes": totals.present_bytes,
        "gone": totals.gone,
        "failed": totals.failed,
        "gave_up": error_text(totals.gave_up) if totals.gave_up else None,
        "verified": arguments.verify and not arguments.dry_run,
        "dry_run": arguments.dry_run,
    }


def _summary(arguments: Namespace, totals: Totals) -> str:
    verb = "would copy" if arguments.dry_run else "copied"
    if arguments.verify and not arguments.dry_run:
        verb = "copied and verified"
    text = (
        f"{verb} {totals.copied} items ({size_text(totals.copied_bytes)}), "
        f"{totals.present} were there ({size_text(totals.present_bytes)})"
    )
    if totals.gone:
        text += f", {totals.gone} vanished meanwhile"
    if totals.failed:
        text += f", {totals.failed} failed; the same command again tries these"
    if totals.gave_up:
        text += f"\ngave up: {error_text(totals.gave_up)}"
    return text


def _new_name(destination: Backend, source: Location, target: Location, info: ItemInfo) -> str:
    """Return the item's new name, or the folder that gets the content of a folder."""
    from backupgw.kvstore.names import joined

    there = destination.info(target.path)
    if target.path and there.exists and not there.directory and (info.directory or target.folder):
        raise CommandError(f"{target}: is an item, no folder")
    if info.directory:
        return target.path
    if target.path == "" or target.folder or there.directory:
        return joined(target.path, source.path.rpartition("/")[2])
    return target.path


def _check_apart(places: Places, source: Location, target: Location, *, folder: bool) -> None:
    """Refuse to copy a folder of this machine into itself, by whatever names."""
    one, other = places.local_folder(source), places.local_folder(target)
    if one is None or other is None or not folder:
        return
    if f"{one}/".startswith(f"{other.rstrip('/')}/") or f"{other}/".startswith(
        f"{one.rstrip('/')}/"
    ):
        raise UsageError(f"{source} and {target}: one lies in the other; copy to another folder")
