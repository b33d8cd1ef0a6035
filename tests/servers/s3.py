"""Servers of the S3 protocol on loopback: what they share, rclone's, and moto's."""

from __future__ import annotations

import sys
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from . import peers
from .free_port import free_port
from .process import ServerProcess
from .running import Running

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

KEY_ID = "AKIDTESTSERVER"
SECRET = "secretKey/with+signs0123456789abcdef"


class S3Server(Running):
    """A server with one user. A context manager."""

    key_id = KEY_ID
    secret = SECRET

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """Scheme, host and port; the same after a restart."""

    @abstractmethod
    def start(self) -> None:
        """Run it until `stop`; again, with what it had, after a kill."""

    @abstractmethod
    def stop(self) -> None:
        """End it; idempotent."""

    @abstractmethod
    def kill(self) -> None:
        """End it by SIGKILL."""

    def url(self, path: str, *, endpoint: str | None = None) -> str:
        """Return the URL of a place, credentials included: "bucket/folder"."""
        return f"s3:{self.key_id}:{self.secret}@{endpoint or self.endpoint}/{path}"

    def client(self) -> S3Client:
        """Return a client of its own, to look at what is there."""
        config = Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        options: dict[str, Any] = {
            "endpoint_url": self.endpoint,
            "aws_access_key_id": self.key_id,
            "aws_secret_access_key": self.secret,
            "region_name": "us-east-1",
        }
        return boto3.session.Session().client("s3", config=config, **options)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys that a bucket has."""
        pages = self.client().get_paginator("list_objects_v2")
        return [
            each["Key"]
            for page in pages.paginate(Bucket=bucket, Prefix=prefix)
            for each in page.get("Contents", [])
        ]

    def uploads(self, bucket: str) -> list[str]:
        """Return the keys of the uploads in parts that nobody has ended."""
        pages = self.client().get_paginator("list_multipart_uploads")
        return [
            each["Key"]
            for page in pages.paginate(Bucket=bucket)
            for each in page.get("Uploads", [])
        ]


class _OneProcess(S3Server):
    """A server that is one process, on a port of its own."""

    ready: str

    def __init__(self) -> None:
        self.port = 0
        self._process: ServerProcess | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs it on `port`."""

    @property
    def pid(self) -> int:
        """Of the process, while it runs."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def start(self) -> None:
        self.port = self.port or free_port()
        self._process = ServerProcess(self.command(), ready=self.ready)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # neither has anything to say good-bye for
            self._process = None

    def kill(self) -> None:
        self.stop()


class RcloneS3(_OneProcess):
    """`rclone serve s3`: buckets are folders of a folder. It ignores If-None-Match."""

    ready = r"Starting s3 server"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def command(self) -> list[str]:
        program = str(peers.get(peers.RCLONE).path)
        return [
            *[program, "--config", "/dev/null", "serve", "s3", str(self.folder)],
            *["--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{self.key_id},{self.secret}"],
        ]


class Moto(_OneProcess):
    """moto's server: all in its memory; it takes any key, and has object lock."""

    ready = r"Running on http"

    def command(self) -> list[str]:
        program = str(Path(sys.executable).parent / "moto_server")
        return [program, "-H", "127.0.0.1", "-p", str(self.port)]
