"""A server's folder, walked and opened by descriptors: no link in it leads out of it.

The folder belongs to somebody who may rename, replace and link at any time while we are in it. So
nothing is ever opened by a path of more than one name: each step is one name below a descriptor,
and no step follows a link.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """Something in a server's folder.

    Attributes:
        names: from the server's root.
        parent: descriptor of the folder that it lies in, good until the next entry is asked for.
        folder: whether it is a folder itself; a link to one is not.
    """

    names: tuple[bytes, ...]
    parent: int
    folder: bool

    @property
    def name(self) -> bytes:
        return self.names[-1]

    @property
    def path(self) -> str:
        """The names for a person, undecodable bytes escaped."""
        return b"/".join(self.names).decode(errors="backslashreplace")


def open_folder(root: int, names: Sequence[bytes]) -> int:
    """Return a descriptor of a folder below `root`; of `root` itself for no names.

    Raises:
        OSError: it does not exist, or a link (ELOOP, ENOTDIR) or something else is on the way.
    """
    descriptor = os.open(b".", FOLDER, dir_fd=root)
    for name in names:
        above = descriptor
        try:
            descriptor = os.open(name, FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def open_staged(path: str) -> int:
    """Return a descriptor of a folder two levels below a server's root, by its absolute path.

    The last two names are in the hands of whoever owns the server: neither may be a link.

    Raises:
        OSError: it does not exist, or a link or something else is on the way.
    """
    root, area, name = path.rsplit("/", 2)
    descriptor = os.open(root, FOLDER)
    try:
        return open_folder(descriptor, [os.fsencode(area), os.fsencode(name)])
    finally:
        os.close(descriptor)


class Walk:
    """All of a folder, each folder before what is in it, by name.

    What vanishes during the walk is passed over.

    Attributes:
        enter: may be set to False by whoever iterates, for the folder just yielded.
    """

    def __init__(self, root: int) -> None:
        self.enter = True
        self._root = root

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries.

        Raises:
            OSError: a folder cannot be read.
        """
        waiting: list[tuple[bytes, ...]] = [()]
        while waiting:
            above = waiting.pop()
            try:
                descriptor = open_folder(self._root, above)
            except (FileNotFoundError, NotADirectoryError):
                if not above:
                    raise
                continue
            try:
                folders = []
                for name, folder in listing(descriptor):
                    self.enter = True
                    yield Entry((*above, name), descriptor, folder)
                    if folder and self.enter:
                        folders.append((*above, name))
                waiting += reversed(folders)
            finally:
                os.close(descriptor)


def listing(folder: int) -> list[tuple[bytes, bool]]:
    """Return the names in a folder, sorted, each with whether it is a folder itself."""
    with os.scandir(folder) as found:
        return sorted(
            (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found
        )
