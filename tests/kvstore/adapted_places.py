"""Objects of borgstore's backend interface, for other processes to make as well."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from borgstore.backends.posixfs import PosixFS as BorgstorePosixFS  # type: ignore[import-untyped]

from backupgw.kvstore.backends.adapted import Adapted


def on_disk(folder: str) -> Adapted:
    """Return borgstore's own PosixFS."""
    return Adapted(BorgstorePosixFS(Path(folder) / "store"))


def several_at_once(folder: str) -> Adapted:
    """The same; its methods may overlap."""
    return Adapted(BorgstorePosixFS(Path(folder) / "store"), at_once=4)


class ObjectNotFound(Exception):
    """One that only its name connects to borgstore's."""


class Info(NamedTuple):
    """What such a backend tells of an item; of borgstore before it had times."""

    name: str
    exists: bool
    size: int
    directory: bool


class InADictionary:
    """A backend that somebody wrote from borgstore's documentation, and nothing else: it is not
    derived from any class, knows no hash and no quota, and has folders only where items are."""

    def __init__(self) -> None:
        self.items: dict[str, bytes] | None = None
        self.calls = 0
        self.most_calls = 0
        self.room: int | None = None

    def create(self) -> None:
        self.items = {}

    def destroy(self) -> None:
        self.items = None

    def open(self) -> None:
        if self.items is None:
            raise BackendDoesNotExist("nobody has made it")

    def close(self) -> None:
        pass

    def mkdir(self, name: str) -> None:
        pass

    def rmdir(self, name: str) -> None:
        raise ObjectNotFound(name)

    def _there(self) -> dict[str, bytes]:
        assert self.items is not None
        return self.items

    def info(self, name: str) -> Info:
        items = self._there()
        if name in items:
            return Info(name, True, len(items[name]), False)
        folder = any(each.startswith(f"{name}/") for each in items)
        return Info(name, folder, 0, folder)

    def load(self, name: str, *, size: int | None = None, offset: int = 0) -> bytes:
        self.calls += 1
        self.most_calls = max(self.most_calls, self.calls)
        try:
            value = self._there()[name][offset:]
        except KeyError:
            raise ObjectNotFound(name) from None
        finally:
            self.calls -= 1
        return value if size is None else value[:size]

    def store(self, name: str, value: bytes | memoryview) -> None:
        if self.room is not None and len(value) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        if name != name.lower():
            raise ValueError(f"name must be lowercase, but got: {name}")
        self._there()[name] = bytes(value)

    def delete(self, name: str) -> None:
        del self._there()[name]

    def move(self, curr_name: str, new_name: str) -> None:
        self._there()[new_name] = self._there().pop(curr_name)

    def list(self, name: str) -> Iterator[Any]:
        below = f"{name}/" if name else ""
        found: dict[str, Info] = {}
        for each, value in self._there().items():
            if each.startswith(below):
                first, slash, _ = each.removeprefix(below).partition("/")
                found[first] = Info(first, True, 0 if slash else len(value), bool(slash))
        if name and not found:
            raise ObjectNotFound(name)
        yield from found.values()


class BackendDoesNotExist(Exception):
    """Likewise."""
