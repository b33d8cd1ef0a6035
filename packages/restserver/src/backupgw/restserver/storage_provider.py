"""pyrestserver's interface of storages: `StorageProvider`, and any place of ours through it.

    with open_place("file:///srv/restic") as place:
        provider = PlaceProvider(place)
        provider.get_config("laptop")

A provider that somebody wrote for pyrestserver is served by `provider_place`; it may be a class
derived from this one or from pyrestserver's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from backupgw.kvstore.backends.base import Backend, ItemInfo
from backupgw.kvstore.backends.errors import ObjectNotFound, PermissionDenied
from backupgw.kvstore.names import InvalidName, joined

from .paths import TYPES, object_name
from .repositories import make_repository


class StorageProvider(ABC):
    """What pyrestserver asks of a storage. Values are moved whole.

    `repo_path` is a repository's path, "" for one at the root; `blob_type` is one of data, index,
    keys, locks and snapshots. How a blob is laid out is the storage's own affair.
    """

    @abstractmethod
    def repository_exists(self, repo_path: str) -> bool:
        """Whether there is a repository: one with a config."""

    @abstractmethod
    def config_exists(self, repo_path: str) -> tuple[bool, int]:
        """Return whether there is a config, and its bytes."""

    @abstractmethod
    def create_repository(self, repo_path: str) -> bool:
        """Make a repository's folders; one that exists is completed. Return whether it is there."""

    @abstractmethod
    def get_config(self, repo_path: str) -> bytes | None:
        """Return a repository's config, None where there is none."""

    @abstractmethod
    def save_config(self, repo_path: str, data: bytes) -> bool:
        """Store a repository's config; return whether that was done."""

    @abstractmethod
    def list_blobs(self, repo_path: str, blob_type: str) -> list[dict[str, Any]] | None:
        """Return {"name": …, "size": …} of each blob, None where there is no such folder."""

    @abstractmethod
    def blob_exists(self, repo_path: str, blob_type: str, name: str) -> tuple[bool, int]:
        """Return whether there is a blob, and its bytes."""

    @abstractmethod
    def get_blob(self, repo_path: str, blob_type: str, name: str) -> bytes | None:
        """Return a blob, None where there is none."""

    @abstractmethod
    def save_blob(self, repo_path: str, blob_type: str, name: str, data: bytes) -> bool:
        """Store a blob; return whether that was done."""

    @abstractmethod
    def delete_blob(self, repo_path: str, blob_type: str, name: str) -> bool:
        """Delete a blob; return whether there was one and it is gone."""

    @abstractmethod
    def is_readonly(self) -> bool:
        """Whether nothing can be changed."""


class PlaceProvider(StorageProvider):
    """A place of ours as a StorageProvider, with restic's layout.

    None and False say what the interface says they do: not there, or not allowed. Where the place
    fails, its BackendError is raised; pyrestserver's own providers answer as if nothing were there.

    Args:
        place: open, and kept so by the caller.
        readonly: refuse every change.
    """

    def __init__(self, place: Backend, *, readonly: bool = False) -> None:
        self._place = place
        self._readonly = readonly

    def repository_exists(self, repo_path: str) -> bool:
        return self.config_exists(repo_path)[0]

    def config_exists(self, repo_path: str) -> tuple[bool, int]:
        return self._told(_at(repo_path, "config"))

    def create_repository(self, repo_path: str) -> bool:
        if self._readonly:
            return False
        try:
            make_repository(self._place, repo_path.strip("/"))
        except PermissionDenied:
            return False
        return True

    def get_config(self, repo_path: str) -> bytes | None:
        return self._load(_at(repo_path, "config"))

    def save_config(self, repo_path: str, data: bytes) -> bool:
        return self._save(_at(repo_path, "config"), data)

    def list_blobs(self, repo_path: str, blob_type: str) -> list[dict[str, Any]] | None:
        if blob_type not in TYPES:
            return None
        base = _at(repo_path, blob_type)
        try:
            found = [*self._place.list(base)]
        except ObjectNotFound:
            return None
        blobs = [each for each in found if not each.directory]
        if blob_type == "data":
            for folder in found:
                if folder.directory:
                    blobs += self._below(joined(base, folder.name))
        return [{"name": each.name, "size": each.size} for each in blobs]

    def _below(self, folder: str) -> list[ItemInfo]:
        try:
            return [each for each in self._place.list(folder) if not each.directory]
        except ObjectNotFound:
            return []  # removed while we were listing

    def blob_exists(self, repo_path: str, blob_type: str, name: str) -> tuple[bool, int]:
        found = _blob(repo_path, blob_type, name)
        return (False, 0) if found is None else self._told(found)

    def get_blob(self, repo_path: str, blob_type: str, name: str) -> bytes | None:
        found = _blob(repo_path, blob_type, name)
        return None if found is None else self._load(found)

    def save_blob(self, repo_path: str, blob_type: str, name: str, data: bytes) -> bool:
        found = _blob(repo_path, blob_type, name)
        return False if found is None else self._save(found, data)

    def delete_blob(self, repo_path: str, blob_type: str, name: str) -> bool:
        found = _blob(repo_path, blob_type, name)
        if found is None or self._readonly:
            return False
        try:
            self._place.delete(found)
        except (ObjectNotFound, PermissionDenied, InvalidName):
            return False
        return True

    def is_readonly(self) -> bool:
        return self._readonly

    def _told(self, name: str) -> tuple[bool, int]:
        try:
            found = self._place.info(name)
        except InvalidName:
            return False, 0
        there = found.exists and not found.directory
        return there, found.size if there else 0

    def _load(self, name: str) -> bytes | None:
        try:
            return self._place.load(name)
        except (ObjectNotFound, InvalidName):
            return None

    def _save(self, name: str, data: bytes) -> bool:
        if self._readonly:
            return False
        try:
            self._place.store(name, data)
        except (PermissionDenied, InvalidName):
            return False
        return True


def _at(repo: str, name: str) -> str:
    return joined(repo.strip("/"), name)


def _blob(repo: str, kind: str, name: str) -> str | None:
    """Return where a blob lies, None where there can be none."""
    if kind not in TYPES or not name or "/" in name:
        return None
    return object_name(_at(repo, kind), kind, name)
