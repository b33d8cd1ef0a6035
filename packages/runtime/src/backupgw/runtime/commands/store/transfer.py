"""`backupgw store` get, put, cat: single items between a place and this machine.

Both ends are whole or absent: a file gets its name once it is complete and synced, an item is
committed once everything was read.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ...command import CommandError, Exit, UsageError
from ..new_file import new_file
from .location import Location, Places
from .output import json_document, size_text
from .progress import Progress, Show, State

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend, Reader

_CHUNK = 1 << 20


def cat(arguments: Namespace, places: Places) -> int:
    """Write an item, or a part of it, to standard output."""
    location = places.locate(arguments.location)
    place = places.open(location)
    with _reader(place, location, arguments.offset, arguments.size) as reader:
        while chunk := reader.read(_CHUNK):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return Exit.DONE


def get(arguments: Namespace, places: Places) -> int:
    """Fetch an item into a file."""
    location = places.locate(arguments.source)
    place = places.open(location)
    with _reader(place, location) as reader:
        if arguments.file == "-":
            while chunk := reader.read(_CHUNK):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return Exit.DONE
        path = Path(arguments.file or location.path.rpartition("/")[2])
        if path.is_dir():
            path /= location.path.rpartition("/")[2]
        size = reader.item_size
        with (
            new_file(path, replace=arguments.force) as file,
            counted(arguments, size) as count,
        ):
            while chunk := reader.read(_CHUNK):
                file.write(chunk)
                count(len(chunk))
    if arguments.json:
        json_document({"name": location.path, "file": str(path), "size": size})
    return Exit.DONE


def put(arguments: Namespace, places: Places) -> int:
    """Store a file as an item."""
    location = places.locate(arguments.target)
    with opened_input(arguments.file) as (file, size):
        place = places.open(location, create=arguments.create, offer=True)
        name = _new_name(place, location, arguments.file)
        if not arguments.force and place.info(name).exists:
            raise CommandError(f"{location.at(name)} exists already; --force replaces it")
        written = _stored(arguments, place, location.at(name), name, file, size)
    if arguments.json:
        json_document({"file": arguments.file, "name": name, "size": written})
    return Exit.DONE


def _stored(
    arguments: Namespace,
    place: Backend,
    shown: str,
    name: str,
    file: BinaryIO,
    size: int | None,
) -> int:
    from backupgw.kvstore.backends.errors import ContentMismatch, ObjectExists

    written = 0
    try:
        with (
            counted(arguments, size) as count,
            place.open_writer(name, size=size, if_absent=not arguments.force) as writer,
        ):
            while chunk := file.read(_CHUNK):
                writer.write(chunk)
                written += len(chunk)
                count(len(chunk))
    except ObjectExists as error:
        raise CommandError(f"{shown} exists already; --force replaces it") from error
    except ContentMismatch as error:
        raise CommandError(
            f"{arguments.file}: changed while it was read; nothing was stored"
        ) from error
    return written


def _new_name(place: Backend, location: Location, file: str) -> str:
    """Return the item's name: a folder gets the file under its own name."""
    from backupgw.kvstore.names import InvalidName, check_path, joined

    found = place.info(location.path)
    if location.path and not location.folder and not found.directory:
        return location.path
    if location.folder and found.exists and not found.directory:
        raise CommandError(f"{location}/: is an item, no folder; leave the / out")
    if file == "-":
        raise UsageError(f"{location}: is a folder; standard input needs the name of an item")
    try:
        return joined(location.path, check_path(os.path.basename(file)))
    except InvalidName as error:
        raise UsageError(f"{file}: {error}; say which name the item shall have") from error


def _reader(place: Backend, location: Location, offset: int = 0, size: int | None = None) -> Reader:
    from backupgw.kvstore.backends.errors import ObjectNotFound

    if location.path == "" or location.folder:
        raise UsageError(f"{location}: is a folder; name an item in it")
    try:
        return place.open_reader(location.path, offset=offset, size=size)
    except ObjectNotFound as error:
        if place.info(location.path).directory:
            raise CommandError(
                f"{location}: is a folder; to fetch all of it: "
                f"backupgw store copy {location} file:///FOLDER"
            ) from error
        raise CommandError(f"{location}: there is no such item") from error


@contextlib.contextmanager
def opened_input(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open what is to be stored; its size is None where only the end tells."""
    if path == "-":
        yield sys.stdin.buffer, None
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        status = os.fstat(file.fileno())
        yield file, status.st_size if stat.S_ISREG(status.st_mode) else None


@contextlib.contextmanager
def counted(arguments: Namespace, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar where there is a terminal; what is yielded is told of bytes that are done."""
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size

    bar = sys.stderr.isatty() and not arguments.json
    with Progress(lambda: State(done, 0, total), Show.BAR if bar else Show.NOTHING):
        yield count
    if not arguments.json and sys.stderr.isatty():
        sys.stderr.write(f"{size_text(done)}\n")
