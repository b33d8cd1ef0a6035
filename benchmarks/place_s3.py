"""A place on S3 for `benchmarks.places`: `rclone serve s3`, which keeps objects in files."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.s3 import RcloneS3

from benchmarks import process_tree
from benchmarks.place_servers import Place, Route


class S3Place(Place):
    """Buckets of one server, each in a folder of a file system."""

    name = "s3"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "buckets"
        self._folder.mkdir(parents=True)
        self._server = RcloneS3(self._folder)

    def __enter__(self) -> Self:
        self._server.__enter__()
        self.port = self._server.port
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.__exit__(kind, error, trace)

    def fresh_folder(self) -> str:
        bucket = f"bench-{secrets.token_hex(4)}"
        self._server.client().create_bucket(Bucket=bucket)
        return bucket

    def stored(self, folder: str) -> int:
        found = (self._folder / folder).rglob("*")
        return sum(path.stat().st_size for path in found if path.is_file())

    def remove(self, folder: str) -> None:
        shutil.rmtree(self._folder / folder)

    def cpu_seconds(self) -> float:
        return process_tree.cpu_seconds(self._server.pid)

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
