"""What a server's status means in the kernel's error family."""

from __future__ import annotations

import struct
from typing import NamedTuple

from . import sftp_wire as wire
from .errors import (
    BackendConnectionError,
    BackendError,
    NameTooLong,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
    UnsupportedOperation,
)
from .sftp_answers import Refused


class Room(NamedTuple):
    """The file system below the place: bytes in all and free, and whether further files fit."""

    total: int
    free: int
    files: bool


def translate(refused: Refused, name: str) -> BackendError:
    """Return the kernel's error for what the server answered to a request on `name`.

    OpenSSH has few codes: a missing file, a folder on the way that is none and a symbolic link
    that leads in a circle are "no such file", a name that is too long is a "bad message", and
    whatever else went wrong is a "failure".
    """
    text = f"{name}: {refused}"
    match refused.code:
        case wire.NO_SUCH_FILE:
            return ObjectNotFound(text)
        case wire.DENIED:
            return PermissionDenied(text)
        case wire.BAD_MESSAGE:
            return NameTooLong(f"{name}: the server does not take such a name ({refused})")
        case wire.UNSUPPORTED:
            return UnsupportedOperation(text)
        case wire.NO_CONNECTION | wire.CONNECTION_LOST:
            return BackendConnectionError(text)
    return BackendError(text)


def not_written(refused: Refused, name: str, room: Room | None, wanted: int) -> BackendError:
    """The same for a write: where all that the server says is "failure", its room decides.

    Args:
        room: what is left, None where the server does not tell.
        wanted: bytes that were to be written, or 1 where a file was to be made.
    """
    said = refused.text.lower()
    if "no space" in said or "quota" in said or "disk full" in said:
        return StorageFull(f"{name}: {refused}")
    if refused.code != wire.FAILURE:
        return translate(refused, name)
    if room is not None and (room.free < wanted or not room.files):
        what = f"{room.free} bytes are" if room.free < wanted else "no further file is"
        return StorageFull(f"{name}: the server's disk is full: {what} free")
    return BackendError(
        f"{name}: the server says no more than {refused.text or 'Failure'!r}; a quota that is used "
        "up looks like this",
        retryable=True,
    )


def room_of(reply: memoryview) -> Room:
    """Understand the answer of statvfs@openssh.com. Raises struct.error."""
    numbers = struct.unpack_from(">11Q", reply)
    size, blocks, available, files, files_free = (
        numbers[1] or numbers[0],
        numbers[2],
        numbers[4],
        numbers[5],
        numbers[7],
    )
    return Room(blocks * size, available * size, not files or files_free > 0)
