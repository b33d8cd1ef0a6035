"""What tests of virtual folders share: a core without HTTP in front of it, and a whole gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.postgres import postgres, postgres_programs, postgres_url
from tests.servers.vfs_gateway import VfsGateway

from backupgw.runtime.authorisation import Principal
from backupgw.runtime.events import Event
from backupgw.runtime.settings import load
from backupgw.vfsproxy.core import Core
from backupgw.vfsproxy.folders.lifecycle import Lifecycle
from backupgw.vfsproxy.identity import Identity

__all__ = ["postgres", "postgres_programs", "postgres_url"]


class Inside:
    """A core that is open, with what tests want of it.

    Attributes:
        told: the events that were published.
    """

    def __init__(self, folder: Path, *, state: str = "", vfs: str = "", more: str = "") -> None:
        self.gateway = VfsGateway(folder, state=state, vfs=vfs, more=more)
        self.told: list[Event] = []
        self.core = Core(load(self.gateway.config), self.told.append)
        self.lifecycle = Lifecycle(self.core)

    @property
    def volume(self) -> Path:
        return self.gateway.volume


def user(name: str) -> Identity:
    """A user with a token that narrows nothing."""
    return Identity(Principal(name), "token")


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    found = Inside(tmp_path)
    with found.core:
        yield found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VfsGateway]:
    with VfsGateway(tmp_path_factory.mktemp("vfs")) as running:
        yield running
