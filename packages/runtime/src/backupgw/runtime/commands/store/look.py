"""`backupgw store` ls, info, du: looking, in memory that does not grow with what there is."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...command import CommandError, Exit, UsageError
from ...secrets import redact_url
from .location import Location, Places
from .output import (
    cell,
    error_text,
    json_document,
    json_line,
    line,
    moment,
    remark,
    size_text,
    time_text,
)

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend, ItemInfo
    from backupgw.kvstore.backends.errors import BackendError


class Unread:
    """Folders that could not be listed: told at once, counted for the exit status."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self.count = 0

    def __call__(self, folder: str, error: BackendError) -> None:
        self.count += 1
        remark(f"{self._location.at(cell(folder))}: cannot be listed: {error_text(error)}")


def ls(arguments: Namespace, places: Places) -> int:
    """List places, a folder, or all below it, as the place tells them: in no order."""
    if arguments.location is None:
        return _list_places(arguments, places)
    location = places.locate(arguments.location)
    place = places.open(location)
    info = _found(place, location)
    unread = Unread(location)
    for path, entry in _entries(place, location.path, info, arguments, unread):
        if arguments.json:
            json_line(_record(path, entry))
            continue
        name = cell(path) + ("/" if entry.directory else "")
        if arguments.long:
            size = "-" if entry.directory else str(entry.size)
            name = f"{size:>14}  {time_text(entry.mtime):<20}  {name}"
        line(name)
    return Exit.PARTLY if unread.count else Exit.DONE


def _entries(
    place: Backend, path: str, info: ItemInfo, arguments: Namespace, unread: Unread
) -> Iterator[tuple[str, ItemInfo]]:
    from backupgw.kvstore.walking import walk

    if not info.directory:
        yield path, info
    elif not arguments.recursive:
        for entry in place.list(path):
            yield entry.name, entry
    else:
        cut = len(path) + 1 if path else 0
        for found in walk(place, path, on_error=unread):
            if not found.left:
                yield found.path[cut:], found.info


def _record(path: str, info: ItemInfo) -> dict[str, Any]:
    record: dict[str, Any] = {"name": path, "type": "folder" if info.directory else "item"}
    if not info.directory:
        record["size"] = info.size
    record["mtime"] = moment(info.mtime)
    return record


def _list_places(arguments: Namespace, places: Places) -> int:
    if arguments.long or arguments.recursive:
        raise UsageError("-l and -R need a place; without one the places themselves are listed")
    for name, settings in sorted(places.settings.places.items()):
        url, layers = redact_url(settings.url), [layer.layer for layer in settings.layers]
        if arguments.json:
            json_line({"name": name, "url": url, "layers": layers})
        else:
            line(f"{name}:  {url}{'  ' if layers else ''}{' · '.join(layers)}")
    return Exit.DONE


def _found(place: Backend, location: Location) -> ItemInfo:
    info = place.info(location.path)
    if not info.exists:
        raise CommandError(f"{location}: there is no such item or folder")
    if location.folder and location.path and not info.directory:
        raise CommandError(f"{location}/: is an item, no folder; leave the / out")
    return info


def du(arguments: Namespace, places: Places) -> int:
    """Add up what lies below a folder; tell each folder down to a depth, and the whole."""
    location = places.locate(arguments.location)
    place = places.open(location)
    info = _found(place, location)
    unread = Unread(location)
    total = [0, 0]
    if info.directory:
        for path, size, items in _sums(place, location.path, arguments.depth, total, unread):
            _tell_sum(arguments, path, size, items)
    else:
        total = [info.size, 1]
    _tell_sum(arguments, "", *total)
    return Exit.PARTLY if unread.count else Exit.DONE


def _sums(
    place: Backend, folder: str, depth: int, total: list[int], unread: Unread
) -> Iterator[tuple[str, int, int]]:
    """Yield (path, bytes, items) of each folder that is not too deep, when it is done."""
    from backupgw.kvstore.walking import walk

    cut = len(folder) + 1 if folder else 0
    above: list[tuple[int, int]] = []
    for found in walk(place, folder, on_error=unread):
        if not found.info.directory:
            total[0] += found.info.size
            total[1] += 1
        elif not found.left:
            above.append((total[0], total[1]))
        else:
            size, items = above.pop()
            if len(above) < depth:
                yield found.path[cut:], total[0] - size, total[1] - items


def _tell_sum(arguments: Namespace, path: str, size: int, items: int) -> None:
    if arguments.json:
        json_line({"name": path, "bytes": size, "items": items})
    else:
        line(f"{size_text(size):>12}  {items:>10} items  {cell(path) + '/' if path else 'in all'}")


def info(arguments: Namespace, places: Places) -> int:
    """Tell about a place, a folder or an item."""
    location = places.locate(arguments.location)
    place = places.open(location)
    found = _found(place, location)
    if location.path == "":
        if arguments.hash:
            raise UsageError(f"{location}: --hash needs an item")
        document = _place_document(location, place, places)
    else:
        document = {"place": location.place} | _record(location.path, found)
        if arguments.hash:
            if found.directory:
                raise UsageError(f"{location}: is a folder; --hash needs an item")
            document["sha256"] = place.hash(location.path)
    if arguments.json:
        json_document(document)
        return Exit.DONE
    for key, value in document.items():
        if isinstance(value, dict):
            text = ", ".join(name.replace("_", " ") for name, has in value.items() if has)
        elif isinstance(value, list):
            text = " · ".join(value)
        elif key in ("size", "quota_limit", "quota_used") and value is not None:
            text = f"{value} ({size_text(value)})"
        else:
            text = "-" if value is None else cell(value)
        line(f"{key.replace('_', ' ') + ':':<13} {text or 'none'}")
    return Exit.DONE


def _place_document(location: Location, place: Backend, places: Places) -> dict[str, Any]:
    quota = place.quota()
    layers = []
    url = location.url
    if location.name:
        settings = places.settings.places[location.name]
        url = settings.url
        layers = [layer.layer for layer in settings.layers]
    return {
        "place": location.place,
        "url": redact_url(url),
        "layers": layers,
        "quota_limit": None if quota.limit < 0 else quota.limit,
        "quota_used": None if quota.usage < 0 else quota.usage,
        "capabilities": dataclasses.asdict(place.capabilities),
    }
