"""Nodes for the tests of the adapter for game panels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers import peers
from tests.servers.panel import Panel

from .node_site import NodeSite


@pytest.fixture(scope="module")
def panel() -> Iterator[Panel]:
    """A Panel, which knows a node once that was started."""
    with Panel() as double:
        yield double


@pytest.fixture(scope="module")
def node(panel: Panel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeSite]:
    """A node with a repository on its own storage, running."""
    site = NodeSite(
        tmp_path_factory.mktemp("node"),
        panel=panel,
        restic=peers.RESTIC_NEW,
    )
    site.make_repository()
    with site:
        yield site
