"""`backupgw store undelete`: brings back what lies in the trash of a place."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ...command import CommandError, Exit, UsageError
from .location import Location, Places
from .output import cell, error_text, json_document, json_line, line, moment, remark, time_text

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend
    from backupgw.kvstore.layers.trash_contents import Entry, Trash


def undelete(arguments: Namespace, places: Places) -> int:
    """List what is kept, or bring an item or all below a folder back."""
    from backupgw.kvstore.backends.errors import UnsupportedOperation
    from backupgw.kvstore.layers.trash_contents import Trash

    location = places.locate(arguments.location)
    at = None if arguments.at is None else _moment(arguments.at)
    place = places.open(location)
    try:
        trash = Trash(place)
    except UnsupportedOperation as error:
        raise CommandError(
            f"{location.place}: has no trash; a place has one by its settings (layers = "
            '[{ layer = "trash", … }])'
        ) from error
    if arguments.list:
        return _list(arguments, trash, location, at)
    if arguments.recursive or location.folder:
        return _restore_all(arguments, place, trash, location, at)
    if location.path == "":
        raise UsageError(f"{location}: names the whole place; -r brings back all of it")
    return _restore_one(arguments, trash, location, at)


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--at {text}: is no time; write 2027-01-31T18:00 (UTC) or 2027-01-31T18:00+01:00"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _in(location: Location, name: str) -> bool:
    """Whether a name is the location's item or lies in its folder."""
    path = location.path
    return path == "" or name.startswith(f"{path}/") or (name == path and not location.folder)


def _entries(trash: Trash, location: Location, at: float | None) -> Iterator[Entry]:
    for entry in trash.entries(location.path):
        if _in(location, entry.name) and (at is None or entry.when > at):
            yield entry


def _list(arguments: Namespace, trash: Trash, location: Location, at: float | None) -> int:
    for entry in _entries(trash, location, at):
        if arguments.json:
            json_line(
                {
                    "name": entry.name,
                    "size": entry.size,
                    "when": moment(entry.when),
                    "until": moment(entry.until),
                    "how": entry.how.name.lower(),
                    "who": entry.who,
                }
            )
        else:
            who = f"  by {cell(entry.who)}" if entry.who else ""
            line(
                f"{time_text(entry.when)}  {entry.how.name.lower():<8}  {entry.size:>14}  "
                f"until {time_text(entry.until)}  {cell(entry.name)}{who}"
            )
    return Exit.DONE


def _restore_one(arguments: Namespace, trash: Trash, location: Location, at: float | None) -> int:
    from backupgw.kvstore.backends.errors import ObjectExists, ObjectNotFound

    versions = [v for v in trash.versions(location.path) if at is None or v.when > at]
    if not versions:
        below = next(_entries(trash, location, at), None)
        hint = "; it was a folder: -r brings back what was in it" if below else ""
        since = "" if at is None else " that was deleted or replaced since then"
        raise CommandError(f"{location}: the trash has nothing of that name{since}{hint}")
    entry = versions[0] if at is None else versions[-1]
    if not arguments.dry_run:
        try:
            trash.restore(entry, replace=arguments.replace)
        except ObjectExists as error:
            raise CommandError(
                f"{location}: there is an item of that name; --replace puts that one into the trash"
            ) from error
        except ObjectNotFound as error:
            raise CommandError(f"{location}: is no longer in the trash") from error
    if arguments.json:
        key = "would_restore" if arguments.dry_run else "restored"
        json_document({key: 1, "name": entry.name, "when": moment(entry.when), "size": entry.size})
    else:
        verb = "would restore" if arguments.dry_run else "restored"
        line(f"{verb} {cell(entry.name)}, {entry.how.name.lower()} {time_text(entry.when)}")
    return Exit.DONE


def _restore_all(
    arguments: Namespace, place: Backend, trash: Trash, location: Location, at: float | None
) -> int:
    if arguments.dry_run:
        return _would_restore(arguments, place, trash, location, at)

    def tell(entry: Entry) -> None:
        if arguments.verbose and not arguments.json:
            line(f"restored {cell(entry.name)}")

    prefix = f"{location.path}/" if location.path else ""
    done = trash.restore_all(prefix, at=at, replace=arguments.replace, on_restored=tell)
    for failure in done.failed:
        remark(error_text(failure))
    if done.failures > len(done.failed):
        remark(f"and {done.failures - len(done.failed)} more")
    if arguments.json:
        json_document(
            {
                "restored": done.items,
                "bytes": done.bytes,
                "kept_newer": done.kept_newer,
                "failed": done.failures,
            }
        )
    else:
        line(f"restored {done.items} items")
        if done.kept_newer:
            remark(
                f"{done.kept_newer} values in the trash were left there: there is an item of that "
                "name; --replace puts that one into the trash"
            )
    if done.failures:
        return Exit.PARTLY if done.items else Exit.FAILED
    return Exit.DONE


def _would_restore(
    arguments: Namespace, place: Backend, trash: Trash, location: Location, at: float | None
) -> int:
    """Tell what would come back. Holds the names, since of several values one wins."""
    from backupgw.kvstore.layers.trash_names import How

    fills_gaps = at is None and not arguments.replace
    chosen: dict[str, tuple[float, int]] = {}
    prefix = f"{location.path}/" if location.path else ""
    for entry in trash.entries(prefix):
        if at is not None and entry.when <= at:
            continue
        if entry.how is How.UNDONE and not fills_gaps:
            continue
        known = chosen.get(entry.name)
        if known is None or (entry.when > known[0]) == (at is None):
            chosen[entry.name] = (entry.when, entry.size)
    there = 0
    for name, (when, size) in sorted(chosen.items()):
        if not arguments.replace and place.info(name).exists:
            there += 1
        elif arguments.json:
            json_line({"name": name, "when": moment(when), "size": size})
        else:
            line(f"would restore {cell(name)}, {time_text(when)}, {size} bytes")
    if not arguments.json:
        line(f"would restore {len(chosen) - there} items")
        if there:
            remark(f"{there} more have an item of that name; --replace brings them back too")
    return Exit.DONE
