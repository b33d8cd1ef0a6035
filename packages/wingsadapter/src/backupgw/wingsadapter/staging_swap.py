"""The three folders of a swap, and the renames between them: out of the way, in, and back.

Everything is done by descriptors of folders, following no link.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Self

AREA = ".backupgw-restore"
NEW, OLD = "new", "old"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a folder is opened."""


class SwapFolders:
    """The three folders of a swap: the server's, the new files', and the old ones'."""

    def __init__(self, root: int, area: int) -> None:
        self._root = root
        self._new = os.open(NEW, FOLDER, dir_fd=area)
        try:
            self._old = os.open(OLD, FOLDER, dir_fd=area)
        except BaseException:
            os.close(self._new)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._new)
        os.close(self._old)

    def clear(self, moved: list[tuple[str, str]]) -> None:
        """Move all that is there to the old ones."""
        for name in os.listdir(self._root):
            if name != AREA:
                os.rename(name, name, src_dir_fd=self._root, dst_dir_fd=self._old)
                moved.append(("out", name))
        _sync_folders(self._root, self._old)

    def put_back(self) -> None:
        """Move the old ones back; none of the new ones was moved yet."""
        for name in os.listdir(self._old):
            os.rename(name, name, src_dir_fd=self._old, dst_dir_fd=self._root)
        _sync_folders(self._root, self._old)

    def fill(self, moved: list[tuple[str, str]]) -> None:
        """Move the new ones to their place, and what is there in their way to the old ones.

        Done again after an interruption, it does the rest.
        """
        self._fill(self._new, self._root, "", moved)
        _sync_folders(self._root, self._old, self._new)

    def _fill(self, new: int, here: int, path: str, moved: list[tuple[str, str]]) -> None:
        for name in os.listdir(new):
            inner = f"{path}{name}"
            there = _mode(name, here)
            mine = _mode(name, new)
            assert mine is not None
            if there is not None and stat.S_ISDIR(there) and stat.S_ISDIR(mine):
                with inside(new, name) as new_folder, inside(here, name) as folder:
                    self._fill(new_folder, folder, f"{inner}/", moved)
                    _sync_folders(folder)
                continue
            if there is not None:
                with self._kept(path) as kept:
                    os.rename(name, name, src_dir_fd=here, dst_dir_fd=kept)
                moved.append(("out", inner))
            os.rename(name, name, src_dir_fd=new, dst_dir_fd=here)
            moved.append(("in", inner))

    def undo(self, moved: list[tuple[str, str]]) -> None:
        """Take back what was moved, last first."""
        for way, path in reversed(moved):
            folder, _, name = path.rpartition("/")
            with _descended(self._root, folder) as here:
                if way == "in":
                    with _descended(self._new, folder) as new:
                        os.rename(name, name, src_dir_fd=here, dst_dir_fd=new)
                else:
                    with _descended(self._old, folder) as old:
                        os.rename(name, name, src_dir_fd=old, dst_dir_fd=here)
        _sync_folders(self._root, self._old, self._new)

    @contextlib.contextmanager
    def _kept(self, path: str) -> Iterator[int]:
        """The folder among the old ones that a path lies in, made where it is missing."""
        folder = path.rstrip("/")
        at = os.dup(self._old)
        try:
            for part in folder.split("/") if folder else ():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=at)
                above, at = at, os.open(part, FOLDER, dir_fd=at)
                os.close(above)
            yield at
        finally:
            os.close(at)


@contextlib.contextmanager
def inside(folder: int, name: str) -> Iterator[int]:
    """Open a folder in another one while something is done in it."""
    descriptor = os.open(name, FOLDER, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _descended(folder: int, path: str) -> Iterator[int]:
    at = os.dup(folder)
    try:
        for part in path.split("/") if path else ():
            above, at = at, os.open(part, FOLDER, dir_fd=at)
            os.close(above)
        yield at
    finally:
        os.close(at)


def _mode(name: str, folder: int) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _sync_folders(*folders: int) -> None:
    for folder in folders:
        os.fsync(folder)
