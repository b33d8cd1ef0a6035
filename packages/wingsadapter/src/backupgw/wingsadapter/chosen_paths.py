"""Which entries of a backup are wanted in a restore of single files and folders."""

from __future__ import annotations

import os
from collections.abc import Sequence


class ChosenPaths:
    """Those below some paths, and the folders on the way.

    Args:
        paths: below the server's root, "a/b"; none: everything.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = {path: tuple(os.fsencode(path).split(b"/")) for path in paths}
        self._missing = set(paths)

    @property
    def missing(self) -> list[str]:
        """Paths that no entry was about."""
        return sorted(self._missing)

    def __call__(self, names: Sequence[bytes]) -> bool:
        if not self._paths:
            return True
        found = False
        for path, wanted in self._paths.items():
            if tuple(names[: len(wanted)]) == wanted:
                self._missing.discard(path)
                found = True
            elif wanted[: len(names)] == tuple(names):
                found = True
        return found
