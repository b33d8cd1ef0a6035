"""What tests of Google Drive ask of its double."""

from __future__ import annotations

from tests.servers.drive_double import DriveDouble


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
