"""Encrypted places: one with readable names in memory, one with sealed names on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kvstore.encrypt.samples import SECRET

from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.encrypt import EncryptLayer, NameStyle


@pytest.fixture
def place() -> Iterator[EncryptLayer]:
    place = EncryptLayer(Memory(), secret=SECRET, names=NameStyle.READABLE)
    place.create()
    with place:
        yield place


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[EncryptLayer]:
    inner = PosixFS(str(tmp_path / "store"), durability="fast")
    place = EncryptLayer(inner, secret=SECRET)
    place.create()
    with place:
        yield place
