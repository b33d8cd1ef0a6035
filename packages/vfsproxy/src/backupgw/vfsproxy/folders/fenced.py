"""A folder's content behind its fence (`fences`): every change of a name is inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from backupgw.kvstore.backends.base import Backend, Capabilities, Writer
from backupgw.kvstore.layers.base import ReadingThrough
from backupgw.kvstore.layers.wrapped import WrappedWriter

from .fences import Fences
from .records import Folder


class FenceLayer(ReadingThrough):
    """The content of a folder as it was when it was looked up; changes are refused afterwards.

    Raises:
        FolderChanged: from every change, once the folder is another's, or no longer to be changed.
    """

    def __init__(self, inner: Backend, fences: Fences, folder: Folder) -> None:
        super().__init__(inner)
        self._fences = fences
        self._folder = folder

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        inner = self.inner.capabilities
        return dataclasses.replace(
            super().capabilities,
            resumable_write=inner.resumable_write,
            copy=inner.copy,
            hash=inner.hash,
        )

    def surely_missing(self, name: str) -> bool:
        return self.inner.surely_missing(name)

    def file_number(self, name: str) -> int:
        return self.inner.file_number(name)

    def mkdir(self, name: str) -> None:
        with self._fences.shared(self._folder):
            self.inner.mkdir(name)

    def mkdirs(self, names: Iterable[str]) -> None:
        with self._fences.shared(self._folder):
            self.inner.mkdirs(names)

    def rmdir(self, name: str) -> None:
        with self._fences.shared(self._folder):
            self.inner.rmdir(name)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        writer = self.inner.open_writer(
            name, size=size, if_absent=if_absent, expected_hash=expected_hash
        )
        return FencedWriter(writer, self._fences, self._folder)

    def resume_writer(self, token: str) -> Writer:
        return FencedWriter(self.inner.resume_writer(token), self._fences, self._folder)

    def abort_writer(self, token: str) -> None:
        self.inner.abort_writer(token)

    def keep_writer(self, token: str) -> None:
        self.inner.keep_writer(token)

    def reserve_writer(
        self, name: str, *, size: int, if_absent: bool = False, seconds: float | None = None
    ) -> str:
        return self.inner.reserve_writer(name, size=size, if_absent=if_absent, seconds=seconds)

    def delete(self, name: str) -> None:
        with self._fences.shared(self._folder):
            self.inner.delete(name)

    def delete_sized(self, name: str) -> int:
        with self._fences.shared(self._folder):
            return self.inner.delete_sized(name)

    def move(self, name: str, new_name: str) -> None:
        with self._fences.shared(self._folder):
            self.inner.move(name, new_name)

    def move_if_absent(self, name: str, new_name: str) -> None:
        with self._fences.shared(self._folder):
            self.inner.move_if_absent(name, new_name)

    def copy(self, name: str, new_name: str) -> None:
        if self.inner.capabilities.copy:
            with self._fences.shared(self._folder):
                self.inner.copy(name, new_name)
        else:
            super().copy(name, new_name)  # by a writer: the fence is not held all the while

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        super().defrag(sources, target)


class FencedWriter(WrappedWriter):
    """A writer whose last step is inside the fence."""

    def __init__(self, writer: Writer, fences: Fences, folder: Folder) -> None:
        super().__init__(writer)
        self._fences = fences
        self._folder = folder

    def commit(self) -> None:
        with self._fences.shared(self._folder):
            self._writer.commit()

    def checkpoint(self) -> str:
        return self._writer.checkpoint()
