"""A new local folder as a place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backupgw.kvstore.backends.posixfs import PosixFS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "place"


@pytest.fixture
def place(root: Path) -> Iterator[PosixFS]:
    backend = PosixFS(str(root))
    backend.create()
    with backend:
        yield backend
