"""Changes of files with all that hangs on them: uploads under way, and both folders' accounts.

What the APIs, the tasks and the commands do alike. Names are those that clients said, unchecked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import changes, names
from .files.names import lying
from .problems import Problem
from .tus.bodies import Space
from .tus.database import DatabaseUploads
from .tus.reaping import end_below

if TYPE_CHECKING:
    from .core import Core
    from .folders.access import FolderAccess


class FileChanges:
    """Deletes, moves and copies in folders that were opened with the permission it takes."""

    def __init__(self, core: Core) -> None:
        self._uploads = DatabaseUploads(core.database)

    def delete(
        self,
        access: FolderAccess,
        path: str,
        *,
        recursive: bool,
        report: changes.Report = changes.silent,
    ) -> int:
        """Delete a file or folder; return how many files and folders.

        Raises:
            Problem: 400; 404; 409, the folder is not empty and not to be deleted with its content.
        """
        name = lying(access.files, names.checked(path))
        if recursive and changes.look(access.files, name).directory:
            # What they have kept may lie in the folders that are to go.
            end_below(self._uploads, Space(access.files, access.staging), access.folder.id, name)
        return changes.delete(access.files, name, recursive=recursive, report=report)

    def move(
        self, source: FolderAccess, path: str, target: FolderAccess, new: str, *, overwrite: bool
    ) -> int:
        """Give a file or folder another name, perhaps in another folder; return how many items.

        Raises:
            Problem: 400; 404; 409, the name is taken, or an upload to it or below it is under way.
        """
        here, there = _ends(source, path, target, new)
        if self._uploads.below(source.folder.id, here.name, 1):
            raise Problem(
                409,
                "uploads-under-way",
                f"an upload to {here.name!r}, or to below it, is under way; let it end first",
            )
        native: changes.Native | None = None
        if source.folder.id != target.folder.id:

            def native(name: str, new_name: str) -> None:
                source.move_to(name, target, new_name, if_absent=not overwrite)

        return changes.move(here, there, overwrite=overwrite, native=native)

    def copy(
        self, source: FolderAccess, path: str, target: FolderAccess, new: str, *, overwrite: bool
    ) -> int:
        """Copy a file, or a folder with all that is in it; return how many items.

        Raises:
            Problem: 400; 404; 409, the name is taken.
        """
        here, there = _ends(source, path, target, new)
        native: changes.Native | None = None
        if source.folder.id != target.folder.id:

            def native(name: str, new_name: str) -> None:
                source.copy_to(name, target, new_name)

        return changes.copy(here, there, overwrite=overwrite, native=native)


def _ends(
    source: FolderAccess, path: str, target: FolderAccess, new: str
) -> tuple[changes.End, changes.End]:
    name = lying(source.files, names.checked(path))
    return (
        changes.End(source.files, source.folder.id, name),
        changes.End(target.files, target.folder.id, names.new(new)),
    )
