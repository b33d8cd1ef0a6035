"""`backupgw store` rm and mv."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...command import CommandError, Exit, UsageError
from .location import Location, Places
from .output import cell, error_text, json_document, line, remark

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.walking import Found


@dataclass
class Tally:
    """What a command did to items."""

    done: int = 0
    failed: int = 0

    @property
    def status(self) -> Exit:
        """The exit status for it."""
        if not self.failed:
            return Exit.DONE
        return Exit.PARTLY if self.done else Exit.FAILED


def rm(arguments: Namespace, places: Places) -> int:
    """Delete items, with -r folders too."""
    tally = Tally()
    targets = [places.locate(text) for text in arguments.locations]
    for location in targets:
        if location.path == "":
            raise UsageError(
                f"{location}: names the whole place; name a folder or an item "
                f"({location.at('FOLDER')})"
            )
    for location in targets:
        _remove(arguments, places.open(location), location, tally)
    if arguments.json:
        key = "would_delete" if arguments.dry_run else "deleted"
        json_document({key: tally.done, "failed": tally.failed})
    return tally.status


def _remove(arguments: Namespace, place: Backend, location: Location, tally: Tally) -> None:
    info = place.info(location.path)
    if not info.exists:
        remark(f"{location}: there is no such item or folder")
        tally.failed += 1
    elif info.directory and not arguments.recursive:
        remark(f"{location}: is a folder; -r deletes all that is in it")
        tally.failed += 1
    elif location.folder and not info.directory:
        remark(f"{location}/: is an item, no folder; leave the / out")
        tally.failed += 1
    elif info.directory:
        _remove_folder(arguments, place, location, tally)
    else:
        _each(arguments, tally, location, location.path, lambda: place.delete(location.path))


def _remove_folder(arguments: Namespace, place: Backend, location: Location, tally: Tally) -> None:
    def not_listed(folder: str, error: BackendError) -> None:
        tally.failed += 1
        remark(f"{location.at(cell(folder))}: cannot be listed: {error_text(error)}")

    while True:
        before = tally.done, tally.failed
        for found in _below(place, location.path, not_listed):
            if not found.info.directory:
                _each(arguments, tally, location, found.path, _deletion(place, found.path))
            elif found.left and not arguments.dry_run:
                _remove_empty(place, found.path)
        # A place may leave entries out of a listing from which others are being deleted.
        if arguments.dry_run or tally.failed > before[1] or tally.done == before[0]:
            break
    if not arguments.dry_run and not _remove_empty(place, location.path) and not tally.failed:
        remark(f"{location}: is not empty: somebody writes to it")
        tally.failed += 1


def _below(
    place: Backend, folder: str, on_error: Callable[[str, BackendError], None]
) -> Iterator[Found]:
    """Walk a folder; one that is not there any more is empty: a place may lose it with its last
    item."""
    from backupgw.kvstore.backends.errors import ObjectNotFound
    from backupgw.kvstore.walking import walk

    try:
        yield from walk(place, folder, on_error=on_error)
    except ObjectNotFound:
        return


def _deletion(place: Backend, path: str) -> Callable[[], None]:
    return lambda: place.delete(path)


def _remove_empty(place: Backend, folder: str) -> bool:
    """Remove a folder if it is empty; a place may have lost it with its last item."""
    from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound

    try:
        place.rmdir(folder)
    except ObjectNotFound:
        return True
    except BackendError as error:
        if error.retryable:
            raise
        return False  # what is still in it was told already, or came just now
    return True


def _each(
    arguments: Namespace, tally: Tally, location: Location, path: str, work: Callable[[], None]
) -> None:
    from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound

    if arguments.dry_run:
        if not arguments.json:
            line(f"would delete {cell(location.at(path))}")
        tally.done += 1
        return
    try:
        work()
    except ObjectNotFound:
        return  # somebody else was faster
    except BackendError as error:
        tally.failed += 1
        remark(f"{cell(location.at(path))}: {error_text(error)}")
        return
    tally.done += 1
    if arguments.verbose and not arguments.json:
        line(f"deleted {cell(location.at(path))}")


def mv(arguments: Namespace, places: Places) -> int:
    """Rename an item, or all that is below a folder, within a place."""
    source, target = places.locate(arguments.source), places.locate(arguments.target)
    if (source.name, source.url) != (target.name, target.url):
        raise UsageError(
            "mv stays within one place; between two: backupgw store copy --verify "
            f"{source} {target}, and then backupgw store rm -r {source}"
        )
    if source.path == "":
        raise UsageError(f"{source}: names the whole place; name a folder or an item")
    place = places.open(source)
    tally = Tally()
    info = place.info(source.path)
    if not info.exists:
        raise CommandError(f"{source}: there is no such item or folder")
    new_path = _new_path(place, source, target)
    if f"{new_path}/".startswith(f"{source.path}/"):
        raise UsageError(f"{source} cannot be moved to {target.at(new_path)}: it lies there itself")
    if info.directory:
        _move_folder(arguments, place, source, new_path, tally)
    else:
        _move(arguments, place, source, (source.path, new_path), tally)
    if arguments.json:
        key = "would_move" if arguments.dry_run else "moved"
        json_document({key: tally.done, "failed": tally.failed, "to": new_path})
    return tally.status


def _new_path(place: Backend, source: Location, target: Location) -> str:
    """Return the new name: a folder that exists gets what is moved under its own last segment."""
    from backupgw.kvstore.names import joined

    found = place.info(target.path)
    if target.path == "" or target.folder or found.directory:
        if found.exists and not found.directory and target.path:
            raise CommandError(f"{target}/: is an item, no folder; leave the / out")
        return joined(target.path, source.path.rpartition("/")[2])
    return target.path


def _move_folder(
    arguments: Namespace, place: Backend, source: Location, new_path: str, tally: Tally
) -> None:
    from backupgw.kvstore.names import joined

    def not_listed(folder: str, error: BackendError) -> None:
        tally.failed += 1
        remark(f"{source.at(cell(folder))}: cannot be listed: {error_text(error)}")

    if place.info(new_path).exists and not place.info(new_path).directory:
        raise CommandError(f"{source.at(new_path)} is an item; a folder cannot replace it")
    cut = len(source.path) + 1
    while True:
        before = tally.done, tally.failed
        for found in _below(place, source.path, not_listed):
            new = joined(new_path, found.path[cut:])
            if not found.info.directory:
                _move(arguments, place, source, (found.path, new), tally)
            elif found.left and not arguments.dry_run:
                if found.entries == 0:
                    place.mkdir(new)
                _remove_empty(place, found.path)
        if arguments.dry_run or tally.failed > before[1] or tally.done == before[0]:
            break
    if not arguments.dry_run:
        place.mkdir(new_path)
        if not _remove_empty(place, source.path) and not tally.failed:
            remark(f"{source}: is not empty: somebody writes to it")
            tally.failed += 1


def _move(
    arguments: Namespace,
    place: Backend,
    location: Location,
    names: tuple[str, str],
    tally: Tally,
) -> None:
    from backupgw.kvstore.backends.errors import BackendError, ObjectExists
    from backupgw.kvstore.names import InvalidName

    name, new_name = names
    shown = f"{cell(location.at(name))} to {cell(location.at(new_name))}"
    if arguments.dry_run:
        if not arguments.json:
            line(f"would move {shown}")
        tally.done += 1
        return
    try:
        if arguments.force:
            place.move(name, new_name)
        else:
            place.move_if_absent(name, new_name)
    except ObjectExists:
        tally.failed += 1
        remark(f"{cell(location.at(new_name))} exists already; --force replaces it")
    except (BackendError, InvalidName) as error:
        tally.failed += 1
        remark(f"{shown}: {error_text(error)}")
    else:
        tally.done += 1
