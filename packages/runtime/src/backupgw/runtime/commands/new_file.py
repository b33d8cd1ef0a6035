"""A file that a command writes: there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..command import CommandError


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a file that has its name, synced, when the block ended well, and is gone otherwise.

    Args:
        replace: what has that name now.
        mode: less what the process's mask takes away.

    Raises:
        CommandError: there is something of that name, or it cannot be written.
    """
    try:
        if not replace and os.path.lexists(path):
            raise FileExistsError
        temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise CommandError(f"{path} exists already; --force replaces it") from None
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from error
