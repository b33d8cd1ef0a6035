"""The times of what restic has dumped: its tar files round them to seconds, its listings do not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from backupgw.runtime.restic.messages import Node

from .server_tree import open_folder


class RestoredTimes:
    """Sets the times of entries in a folder, following no link. A context manager.

    Args:
        folder: descriptor of the folder that was unpacked into.
        below: names that paths in the snapshot begin with.
    """

    def __init__(self, folder: int, below: Sequence[bytes]) -> None:
        self._folder = folder
        self._below = tuple(below)
        self._names: tuple[bytes, ...] = ()
        self._parent = -1

    def __enter__(self) -> RestoredTimes:
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()

    def take(self, node: Node) -> None:
        """Set the times of an entry; pass over one that was not unpacked, or is another now."""
        names = tuple(name for name in os.fsencode(node.path).split(b"/") if name)
        begin = len(self._below)
        if node.changed is None or names[:begin] != self._below or len(names) == begin:
            return
        names = names[begin:]
        with contextlib.suppress(OSError, OverflowError, ValueError):
            times = (node.changed, node.changed)
            os.utime(names[-1], ns=times, dir_fd=self._enter(names[:-1]), follow_symlinks=False)

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
