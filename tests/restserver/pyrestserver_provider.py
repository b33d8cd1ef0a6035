"""A provider as its author wrote it for pyrestserver: its interface, its names, nothing of ours."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from backupgw.restserver.storage_provider import StorageProvider


class FlatProvider(StorageProvider):
    """Keeps each repository in one flat folder of files, as nobody else does."""

    def __init__(self, folder: str, readonly: bool = False) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(exist_ok=True)
        self._readonly = readonly
        self._lock = threading.Lock()
        self.broken = False
        self.calls = 0
        self.most_calls = 0
        self.listings = 0

    def _path(self, repo: str, kind: str, name: str = "") -> Path:
        return self._folder / "__".join([repo.replace("/", "--"), kind, name])

    def repository_exists(self, repo_path: str) -> bool:
        return self.config_exists(repo_path)[0]

    def config_exists(self, repo_path: str) -> tuple[bool, int]:
        return self._size(self._path(repo_path, "config"))

    def _size(self, path: Path) -> tuple[bool, int]:
        return (True, path.stat().st_size) if path.exists() else (False, 0)

    def create_repository(self, repo_path: str) -> bool:
        return not self._readonly

    def get_config(self, repo_path: str) -> bytes | None:
        return self._get(self._path(repo_path, "config"))

    def _get(self, path: Path) -> bytes | None:
        with self._lock:
            self.calls += 1
            self.most_calls = max(self.most_calls, self.calls)
        try:
            return None if self.broken or not path.exists() else path.read_bytes()
        finally:
            with self._lock:
                self.calls -= 1

    def save_config(self, repo_path: str, data: bytes) -> bool:
        return self._put(self._path(repo_path, "config"), data)

    def _put(self, path: Path, data: bytes) -> bool:
        if self._readonly or self.broken:
            return False
        path.write_bytes(data)
        return True

    def list_blobs(self, repo_path: str, blob_type: str) -> list[dict[str, Any]] | None:
        self.listings += 1
        prefix = self._path(repo_path, blob_type).name
        found = self._folder.glob(f"{prefix}*")
        return [
            {"name": path.name.removeprefix(prefix), "size": path.stat().st_size} for path in found
        ]

    def blob_exists(self, repo_path: str, blob_type: str, name: str) -> tuple[bool, int]:
        return self._size(self._path(repo_path, blob_type, name))

    def get_blob(self, repo_path: str, blob_type: str, name: str) -> bytes | None:
        return self._get(self._path(repo_path, blob_type, name))

    def save_blob(self, repo_path: str, blob_type: str, name: str, data: bytes) -> bool:
        return self._put(self._path(repo_path, blob_type, name), data)

    def delete_blob(self, repo_path: str, blob_type: str, name: str) -> bool:
        path = self._path(repo_path, blob_type, name)
        if self._readonly or self.broken or not path.exists():
            return False
        path.unlink()
        return True

    def is_readonly(self) -> bool:
        return self._readonly
