"""What restic's tar files do not say and its listings do, put right after they were unpacked.

Times are rounded to seconds there, and named pipes, sockets and devices come as empty files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from backupgw.runtime.restic.messages import Node

from .server_tree import open_folder

_UNPACKED = ("file", "dir", "symlink")


class DumpGaps:
    """Puts entries in a folder right, following no link. A context manager.

    Args:
        folder: descriptor of the folder that was unpacked into.
        below: names that paths in the snapshot begin with.

    Attributes:
        left_out: how many entries are no files, folders or links, and were removed.
    """

    def __init__(self, folder: int, below: Sequence[bytes]) -> None:
        self._folder = folder
        self._below = tuple(below)
        self._names: tuple[bytes, ...] = ()
        self._parent = -1
        self.left_out = 0

    def __enter__(self) -> DumpGaps:
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()

    def take(self, node: Node) -> None:
        """Put an entry right; pass over one that was not unpacked, or is another now."""
        names = tuple(name for name in os.fsencode(node.path).split(b"/") if name)
        begin = len(self._below)
        if names[:begin] != self._below or len(names) == begin:
            return
        names = names[begin:]
        with contextlib.suppress(OSError, OverflowError, ValueError):
            parent = self._enter(names[:-1])
            if node.type not in _UNPACKED:
                os.unlink(names[-1], dir_fd=parent)
                self.left_out += 1
            elif node.changed is not None:
                times = (node.changed, node.changed)
                os.utime(names[-1], ns=times, dir_fd=parent, follow_symlinks=False)

    def _enter(self, names: tuple[bytes, ...]) -> int:
        if self._parent < 0 or names != self._names:
            self._leave()
            self._parent = open_folder(self._folder, names)
            self._names = names
        return self._parent

    def _leave(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)
        self._parent = -1
