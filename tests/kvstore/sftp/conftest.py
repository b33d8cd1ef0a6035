"""Servers of the tests, and a folder on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.sshd import Sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def jumps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sshd]]:
    """Two other hosts."""
    with (
        Sshd(tmp_path_factory.mktemp("jump1")) as one,
        Sshd(tmp_path_factory.mktemp("jump2")) as two,
    ):
        yield [one, two]
