"""Whether an item may lie where it is to be put: what is above it must be folders."""

from __future__ import annotations

from backupgw.kvstore.backends.base import Backend

from .refusals import FileRefusal


def check_parents(place: Backend, name: str) -> None:
    """Refuse a path that leads through a file.

    Raises:
        FileRefusal: 409.
        BackendError: the volume failed.
    """
    parent = name
    while parent := parent.rpartition("/")[0]:
        info = place.info(parent)
        if info.exists:
            if not info.directory:
                raise FileRefusal(409, "not-a-folder", f"{parent!r} is a file, not a folder")
            return
