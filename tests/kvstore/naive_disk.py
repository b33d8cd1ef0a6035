"""A backend on disk as one writes it in a hurry: every mistake that only other processes notice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from backupgw.kvstore.backends.base import Backend, Capabilities, ItemInfo, Reader, Writer
from backupgw.kvstore.backends.errors import (
    BackendDoesNotExist,
    BackendError,
    ObjectExists,
    ObjectNotFound,
)
from backupgw.kvstore.names import check_folder, check_path


class NaiveDisk(Backend):
    """Writes in place, looks before it leaps, and keeps a list of names in memory."""

    capabilities = Capabilities(atomic_create=True)

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.sizes: dict[str, int] = {}

    def create(self) -> None:
        self.path.mkdir()

    def destroy(self) -> None:
        shutil.rmtree(self.path)

    def open(self) -> None:
        if not self.path.is_dir():
            raise BackendDoesNotExist(str(self.path))

    def close(self) -> None:
        self.sizes.clear()

    def mkdir(self, name: str) -> None:
        (self.path / check_folder(name)).mkdir(parents=True, exist_ok=True)

    def rmdir(self, name: str) -> None:
        (self.path / check_path(name)).rmdir()

    def info(self, name: str) -> ItemInfo:
        path = self.path / check_folder(name)
        if path.is_file() and name not in self.sizes:
            self.sizes[name] = path.stat().st_size
        return ItemInfo(name, path.exists(), self.sizes.get(name, 0), path.is_dir())

    def list(self, name: str) -> Iterator[ItemInfo]:
        path = self.path / check_folder(name)
        return (ItemInfo(each.name, True, 0, each.is_dir()) for each in path.iterdir())

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        try:
            value = (self.path / check_path(name)).read_bytes()
        except OSError as error:
            raise ObjectNotFound(name) from error
        return _Reader(value[offset:][:size])

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        return _Writer(self.path / check_path(name), if_absent=if_absent)

    def delete(self, name: str) -> None:
        try:
            (self.path / check_path(name)).unlink()
        except FileNotFoundError as error:
            raise ObjectNotFound(name) from error

    def move(self, name: str, new_name: str) -> None:
        try:
            (self.path / name).replace(self.path / new_name)
        except FileNotFoundError as error:
            raise ObjectNotFound(name) from error


class _Reader(Reader):
    def __init__(self, value: bytes) -> None:
        self.value = value
        self.item_size = self.remaining = len(value)

    def read(self, size: int) -> bytes:
        data, self.value = self.value[:size], self.value[size:]
        return data

    def close(self) -> None:
        self.value = b""


class _Writer(Writer):
    def __init__(self, path: Path, *, if_absent: bool) -> None:
        if if_absent and path.exists():
            raise ObjectExists(path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.mode = "wb"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            with self.path.open(self.mode) as file:
                file.write(data)
        except OSError as error:
            raise BackendError(self.path.name) from error
        self.mode = "ab"
        time.sleep(0.001)  # as disks do

    def commit(self) -> None:
        """All is there already."""

    def abort(self) -> None:
        """Too late."""


class DiskThatRemembers(NaiveDisk):
    """Answers from memory what another process has changed since."""

    def info(self, name: str) -> ItemInfo:
        info = super().info(name)
        return info._replace(exists=info.exists or name in self.sizes)
