"""Services that speak S3's protocol."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers.s3 import Moto, RcloneS3


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with Moto() as server:
        yield server


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneS3]:
    with RcloneS3(tmp_path_factory.mktemp("rclone")) as server:
        yield server
