"""What tests of Google Drive ask of its double."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.servers.drive_double import DriveDouble

from backupgw.kvstore.backends.base import Backend

PART = 1 << 20


class Keys(NamedTuple):
    """What the double lets in."""

    refresh_token: str
    client_id: str
    client_secret: str


def keys(double: DriveDouble) -> Keys:
    service = double.service
    return Keys(service.refresh_token, service.client_id, service.client_secret)


def add_drive(double: DriveDouble, number: str) -> None:
    double.service.add_drive(number)


def named(double: DriveDouble, inside: str, name: str) -> list[bytes | None]:
    """What lies in files of a name within a place, None for those in the trash; folders have no
    bytes."""
    files = double.service.files

    def belongs(number: str) -> bool:
        file = files.get(number)
        return file is not None and (file.name == inside or belongs(file.parent))

    return [
        None if file.trashed else file.data
        for file in files.values()
        if file.name == name and belongs(file.parent)
    ]


def put(double: DriveDouble, folder: str, name: str, data: bytes) -> None:
    """Store another file in a folder: what a stranger may do."""
    service = double.service
    there = next(file for file in service.files.values() if file.name == folder)
    service._create({"name": name, "parents": [there.id]}, data)


def fill_folder(double: DriveDouble, path: str, names: Sequence[str]) -> None:
    folder = double.service.folder(path)
    for name in names:
        double.service._create({"name": name, "parents": [folder.id]}, b"")


def empty_folder(double: DriveDouble, path: str, names: Sequence[str]) -> None:
    wanted, inside = {*names}, double.service.inside(double.service.folder(path))
    for file in [file for file in inside if file.name in wanted]:
        double.service._remove(file)


def url_of(place: Backend) -> str:
    return repr(place).split("'")[1]
