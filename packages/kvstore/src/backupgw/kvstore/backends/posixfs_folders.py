"""The folders of a local place: found, made where they are missing, made durable."""

from __future__ import annotations

import os
from collections.abc import Iterable

from . import posixfs_naming as naming
from .beneath import Beneath
from .posixfs_errors import translate


class Folders:
    """Folders beneath a root that is open.

    Args:
        sync: whether what is made or changed is made durable.

    Everything raises OSError, but for `parent`.
    """

    __slots__ = ("modes", "root", "synced")

    def __init__(self, root: Beneath, modes: naming.Modes, *, sync: bool) -> None:
        self.root = root
        self.modes = modes
        self.synced = sync

    def make(self, name: str) -> int:
        """Open the folder `name`, made with its parents where missing."""
        try:
            return self.root.open_folder(name)
        except FileNotFoundError:
            if name == "":
                raise
        parent_name, _, segment = name.rpartition("/")
        parent = self.make(parent_name)
        try:
            naming.make_folder(parent, segment, self.modes, sync=self.synced)
        finally:
            os.close(parent)
        return self.root.open_folder(name)

    def make_all(self, names: Iterable[str]) -> None:
        """Make several folders; each parent is synced once."""
        parents: dict[str, int] = {}
        try:
            for name in names:
                parent, _, segment = name.rpartition("/")
                if parent not in parents:
                    parents[parent] = self.make(parent)
                naming.make_folder(parents[parent], segment, self.modes, sync=False)
            for folder in parents.values():
                self.sync(folder)
        finally:
            for folder in parents.values():
                os.close(folder)

    def nearest(self, name: str) -> tuple[int, list[str]]:
        """Open the folder `name` or the nearest above it; return what is missing, too."""
        missing: list[str] = []
        while True:
            try:
                return self.root.open_folder(name), missing
            except FileNotFoundError:
                if name == "":
                    raise
            name, _, segment = name.rpartition("/")
            missing.insert(0, segment)

    def parent(self, name: str) -> ParentFolder:
        """Return a context manager: the folder of an item, open, and the item's segment in it.

        Raises:
            BackendError: the folder cannot be opened.
        """
        return ParentFolder(self.root, name)

    def sync(self, folder: int) -> None:
        """Make the names in an open folder durable."""
        if self.synced:
            os.fsync(folder)


class ParentFolder:
    """See `Folders.parent`."""

    __slots__ = ("_fd", "_segment")

    def __init__(self, root: Beneath, name: str) -> None:
        parent, _, self._segment = name.rpartition("/")
        try:
            self._fd = root.open_folder(parent)
        except OSError as error:
            raise translate(error, name) from error

    def __enter__(self) -> tuple[int, str]:
        return self._fd, self._segment

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
