"""A site that takes uploads by tus, and what is uploaded."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.vfsproxy.file_process import FileProcess
from tests.vfsproxy.file_site import Site

from backupgw.vfsproxy.tus.receiving import Terms

MIB = 1 << 20
LIMIT = 64 * MIB


@pytest.fixture(scope="module", params=["disk", "pieces"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FileProcess]:
    """On a volume that carries writes on, and on one that does not."""
    folder = tmp_path_factory.mktemp(f"tus-{request.param}")
    terms = Terms(max_size=48 * MIB, max_checked=4 * MIB)
    site = Site(str(folder), pieces=request.param == "pieces", limit=LIMIT, terms=terms)
    with FileProcess(site) as process:
        yield process


@pytest.fixture
def content() -> bytes:
    return os.urandom(3 * MIB + 12_345)
