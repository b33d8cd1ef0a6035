"""Folders of an rclone remote: real ones, or, where a remote has items alone, marked ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .errors import BackendDoesNotExist, BackendError, ObjectNotFound
from .marked_folders import Folders, Keys, MarkedFolders
from .rclone_calls import LONG, Calls, Features
from .rclone_names import decoded


class RealFolders(Folders):
    """Those that the remote has itself.

    Args:
        strict: the remote itself refuses an item in a folder's place.
    """

    def __init__(self, calls: Calls, *, strict: bool) -> None:
        self._calls = calls
        self._strict = strict

    def exists(self, name: str) -> bool:
        try:
            self._calls.any_entry(name, folders_only=True)
        except ObjectNotFound:
            return False
        return True

    def make(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._calls.ask("operations/mkdir", name, self._calls.at(name))
            except ObjectNotFound as error:
                raise BackendError(f"{name}: an item is in the way of the folder") from error

    def before_writing(self, name: str) -> None:
        if not self._strict and self.exists(name):
            raise BackendError(f"{name}: is a folder")

    def before_removing(self, name: str) -> None:
        """It stays by itself."""

    def remove(self, name: str) -> None:
        self._calls.ask("operations/rmdir", name, self._calls.at(name))


class _RemoteKeys(Keys):
    """What the marks of a remote stand on.

    Args:
        put: stores an empty item.
    """

    def __init__(self, calls: Calls, put: Callable[[str], None]) -> None:
        self._calls = calls
        self._put = put

    def has(self, name: str) -> bool:
        return self._calls.item(name) is not None

    def below(self, name: str) -> Iterator[tuple[str, bool]]:
        for entry in self._calls.entries(name):
            yield decoded(entry["Name"]), bool(entry.get("IsDir"))

    def put(self, name: str) -> None:
        self._put(name)

    def drop(self, name: str) -> None:
        self._calls.ask("operations/deletefile", name, self._calls.at(name))


def folders_of(calls: Calls, features: Features, put: Callable[[str], None]) -> Folders:
    """Return what suits a remote."""
    if features.real_folders:
        return RealFolders(calls, strict=features.partial_uploads)
    return MarkedFolders(_RemoteKeys(calls, put))


def make_root(calls: Calls) -> None:
    """Make the place's own folder, and the bucket that it may be. Raises BackendDoesNotExist where
    the remote has nowhere to make it."""
    try:
        calls.ask("operations/mkdir", "", calls.at(""), timeout=LONG)
    except ObjectNotFound as error:
        raise BackendDoesNotExist(
            f"{calls.remote.shown}: rclone finds no place for the folder (a union makes one where "
            "its create_policy says)"
        ) from error
