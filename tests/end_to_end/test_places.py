"""restic on a place with layers, declared in the settings: all works, and each is in force."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.gateway import Gateway
from tests.servers.restic import Restic

LAYERS: list[object] = [
    "observe",
    {"layer": "permissions", "rules": {"": "lrwWD"}},
    {"layer": "quota", "limit": "40 MB"},
    {"layer": "throttle", "upload": "200 MB/s", "download": "200 MB/s"},
    {"layer": "retry", "attempts": 3},
    {"layer": "prefix", "folder": "gateway"},
]


def gateway(repositories: Path, state: Path, layers: list[object]) -> Gateway:
    environment = {  # --path makes a place of the name "path"
        "BACKUPGW_PLACES__PATH__LAYERS": json.dumps(layers),
        "BACKUPGW_STATE__FOLDER": str(state),
    }
    return Gateway(repositories, environment=environment)


@pytest.mark.peers(peers.RESTIC_NEW)  # older ones try again for minutes when they are refused
def test_a_backup_through_a_stack_of_layers(
    small_tree: Path, repositories: Path, tmp_path: Path
) -> None:
    newest = peers.get(peers.RESTIC_NEW)
    stored = repositories / "gateway" / "mine"
    with gateway(repositories, tmp_path / "state", LAYERS) as server:
        restic = Restic(newest, server.repository("mine"), tmp_path / "home")
        restic.init(stored)
        restic.run("backup", ".", directory=small_tree)
        restic.run("check", "--read-data")
        restic.run("restore", "latest", "--target", tmp_path / "restored")
        wanted, found = tree.describe(small_tree), tree.describe(tmp_path / "restored")
        assert tree.differences(wanted, found) == []
        (small_tree / "too much").write_bytes(b"".join(hash_blocks(60_000_000)))
        refused = restic.attempt("backup", ".", directory=small_tree)
        assert refused.returncode != 0
        assert "507" in refused.stderr, "the place's limit is told"
        restic.run("unlock")
        restic.run("check")
    assert [path.name for path in repositories.iterdir()] == ["gateway"]
    with gateway(repositories, tmp_path / "state", ["readonly", *LAYERS[2:]]) as server:
        restic = Restic(newest, server.repository("mine"), tmp_path / "home")
        assert len(restic.json("snapshots", "--no-lock")) == 1
        refused = restic.attempt("backup", ".", directory=small_tree)
        assert refused.returncode != 0
        assert "403" in refused.stderr, "a read-only place says so"


def hash_blocks(size: int) -> list[bytes]:
    """Return bytes that neither compress nor repeat."""
    return [hashlib.shake_128(n.to_bytes(8, "big")).digest(1 << 20) for n in range(size >> 20)]
