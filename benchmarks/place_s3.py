"""Places on S3 for `benchmarks.places`: `rclone serve s3`, which keeps objects in files, and Ceph.

Both take uploads in parts; only Ceph refuses a second object of a key by itself, so that nobody has
to look first.
"""

from __future__ import annotations

import secrets
import shutil
from abc import abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.ceph import Ceph
from tests.servers.s3 import RcloneS3, S3Server

from benchmarks import process_tree
from benchmarks.place_servers import Place, Route


class S3Place(Place):
    """Buckets of one server."""

    _server: S3Server

    def __enter__(self) -> Self:
        self._server.__enter__()
        self.port = int(self._server.endpoint.rpartition(":")[2])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.__exit__(kind, error, trace)

    @abstractmethod
    def _pids(self) -> list[int]:
        """Return the server's processes."""

    def fresh_folder(self) -> str:
        bucket = f"bench-{secrets.token_hex(4)}"
        self._server.client().create_bucket(Bucket=bucket)
        return bucket

    def cpu_seconds(self) -> float:
        return sum(map(process_tree.cpu_seconds, self._pids()))

    def for_restic(self, port: int, folder: str) -> Route:
        keys = {"AWS_ACCESS_KEY_ID": self._server.key_id}
        keys["AWS_SECRET_ACCESS_KEY"] = self._server.secret
        return Route(
            f"s3:http://127.0.0.1:{port}/{folder}/repo", ("-o", "s3.bucket-lookup=path"), keys
        )

    def for_rclone(self, port: int, folder: str) -> tuple[str, str]:
        lines = [
            "type = s3",
            "provider = Other",
            f"endpoint = http://127.0.0.1:{port}",
            f"access_key_id = {self._server.key_id}",
            f"secret_access_key = {self._server.secret}",
            "force_path_style = true",
        ]
        return "\n".join(lines), folder

    def for_backupgw(self, port: int, folder: str) -> str:
        return (
            f'url = "s3:http://127.0.0.1:{port}/{folder}/place"\n'
            f'access_key_id = "{self._server.key_id}"\n'
            f'secret_access_key = "{self._server.secret}"'
        )


class RclonePlace(S3Place):
    """`rclone serve s3`: buckets are folders of a file system."""

    name = "s3"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "buckets"
        self._folder.mkdir(parents=True)
        self._server: RcloneS3 = RcloneS3(self._folder)

    def _pids(self) -> list[int]:
        return [self._server.pid]

    def stored(self, folder: str) -> int:
        found = (self._folder / folder).rglob("*")
        return sum(path.stat().st_size for path in found if path.is_file())

    def remove(self, folder: str) -> None:
        shutil.rmtree(self._folder / folder)


class CephPlace(S3Place):
    """A Ceph with its store in a folder."""

    name = "ceph"

    def __init__(self, folder: Path) -> None:
        self._server: Ceph = Ceph(folder / "ceph")

    def _pids(self) -> list[int]:
        return self._server.pids

    def _objects(self, folder: str) -> list[tuple[str, int]]:
        pages = self._server.client().get_paginator("list_objects_v2").paginate(Bucket=folder)
        return [(each["Key"], each["Size"]) for page in pages for each in page.get("Contents", [])]

    def stored(self, folder: str) -> int:
        return sum(size for _, size in self._objects(folder))

    def remove(self, folder: str) -> None:
        client = self._server.client()
        for key, _ in self._objects(folder):
            client.delete_object(Bucket=folder, Key=key)
        client.delete_bucket(Bucket=folder)
