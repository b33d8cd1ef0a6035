"""`backupgw` with a folder that dies: the program that the mirror's test starts.

The folder that BACKUPGW_TEST_DYING names dies once it was sent as many bytes as
BACKUPGW_TEST_AFTER says, in the middle of a write: a file of the same name with `.dead` behind it
appears. While that is there, the place answers nothing.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

from backupgw.kvstore.backends import posixfs
from backupgw.kvstore.backends.base import Backend, Writer
from tests.kvstore.failing_place import FailingPlace, gone


class DyingPlace(FailingPlace):
    """Dies after `allowed` bytes."""

    def __init__(self, inner: Backend, dead: Path, allowed: int) -> None:
        super().__init__(inner)
        self.dead = dead
        self.left = allowed

    def _meet(self, what: str) -> None:
        if self.dead.exists():
            raise gone()

    def open_writer(self, name: str, **options: Any) -> Writer:
        return _Counting(self, super().open_writer(name, **options))


class _Counting(Writer):
    def __init__(self, place: DyingPlace, inner: Writer) -> None:
        self._place = place
        self._inner = inner

    def write(self, data: bytes | bytearray | memoryview) -> None:
        before = self._place.left
        self._place.left = before - len(data)
        if before >= 0 > self._place.left:
            self._place.dead.touch()
        self._inner.write(data)

    def check(self) -> None:
        self._inner.check()

    def commit(self) -> None:
        self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()


def _main() -> int:
    from backupgw.runtime.cli import main

    dying = os.environ["BACKUPGW_TEST_DYING"]
    allowed = int(os.environ["BACKUPGW_TEST_AFTER"])
    from_url = posixfs.from_url

    @functools.wraps(from_url)
    def from_url_of_a_bad_disk(url: str, **options: Any) -> Backend:
        folder = from_url(url, **options)
        if folder.path != dying:
            return folder
        return DyingPlace(folder, Path(f"{dying}.dead"), allowed)

    setattr(posixfs, "from_url", from_url_of_a_bad_disk)  # noqa: B010 - a function is replaced
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(_main())
