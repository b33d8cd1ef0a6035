"""Names that differ only in case, which are one to Dropbox: the second is refused."""

from __future__ import annotations

from collections.abc import Callable

from dropbox import files

from .dropbox_calls import Calls, Found
from .dropbox_names import decode
from .errors import BackendError, NameCollision, ObjectNotFound

_KNOWN_FOLDERS = 10_000


class Namesakes:
    """What is in the way of a name, or of the folders before it.

    Args:
        calls: by which is looked.
        path: returns a name as Dropbox has it.
    """

    def __init__(self, calls: Calls, path: Callable[[str], str]) -> None:
        self._calls = calls
        self._path = path
        self._folders: dict[str, None] = {}
        """Folders that were seen to exist, written as they are."""

    def knows(self, folder: str) -> bool:
        """Whether a folder was seen to exist."""
        return folder in self._folders

    def forget(self, name: str = "") -> None:
        """Forget a folder with those below it, "" for all."""
        for folder in [*self._folders]:
            if not name or folder == name or folder.startswith(f"{name}/"):
                self._folders.pop(folder, None)

    def check_place(self, name: str) -> None:
        """Raise where an item's folders cannot be what its name says.

        Raises:
            NameCollision: a folder exists whose name differs in case.
            BackendError: one of them is an item.
        """
        parent = name
        unseen = []
        while (parent := parent.rpartition("/")[0]) and parent not in self._folders:
            unseen.append(parent)
        for folder in reversed(unseen):
            try:
                found = self._calls.look(folder, self._path(folder))
            except ObjectNotFound:
                return  # it will be made as it is written here
            self.require_same(folder, found)
            if not isinstance(found, files.FolderMetadata):
                raise BackendError(f"{name}: {folder!r} is an item, not a folder")
            if len(self._folders) >= _KNOWN_FOLDERS:
                self._folders.clear()
            self._folders[folder] = None

    def check_replaced(self, name: str) -> None:
        """Raise unless what is in the way of `name` is an item of that very name.

        Raises:
            NameCollision: its name differs in case.
            BackendError: it is a folder.
        """
        try:
            found = self._calls.look(name, self._path(name))
        except ObjectNotFound:
            return  # gone meanwhile
        self.require_same(name, found)
        if not isinstance(found, files.FileMetadata):
            raise BackendError(f"{name}: is a folder")

    @staticmethod
    def require_same(name: str, found: Found) -> None:
        """Raise NameCollision unless what was found for a name is called exactly so."""
        there = decode(found.name)
        if there != name.rpartition("/")[2]:
            raise NameCollision(
                f"{name}: Dropbox has {there!r} there, and takes names that differ only in case "
                "for the same"
            )
