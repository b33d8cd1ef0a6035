"""Small repositories for the tests that are not about bulk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers


@pytest.fixture(
    params=[
        pytest.param(name, id=name, marks=pytest.mark.peers(name))
        for name in (peers.RESTIC_OLD, peers.RESTIC_NEW)
    ]
)
def restic_peer(request: pytest.FixtureRequest) -> peers.Peer:
    """restic as Debian 12 has it, then the newest."""
    return peers.get(request.param)


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """A few megabytes of awkward files."""
    root = tmp_path / "small tree"
    tree.build_small(root)
    return root
