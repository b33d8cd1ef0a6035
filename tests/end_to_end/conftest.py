"""Small repositories for the tests that are not about bulk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers


def _restic(name: str, *marks: pytest.MarkDecorator) -> object:
    return pytest.param(name, id=name, marks=[pytest.mark.peers(name), *marks])


@pytest.fixture(params=[_restic(peers.RESTIC_OLD), _restic(peers.RESTIC_NEW)])
def each_restic_peer(request: pytest.FixtureRequest) -> peers.Peer:
    """restic as Debian 12 has it, then the newest."""
    return peers.get(request.param)


@pytest.fixture(
    params=[_restic(peers.RESTIC_OLD, pytest.mark.soak), _restic(peers.RESTIC_NEW)],
)
def restic_peer(request: pytest.FixtureRequest) -> peers.Peer:
    """The newest restic, and in the soak the old one, too: for what depends on the server alone."""
    return peers.get(request.param)


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """A few megabytes of awkward files."""
    root = tmp_path / "small tree"
    tree.build_small(root)
    return root
