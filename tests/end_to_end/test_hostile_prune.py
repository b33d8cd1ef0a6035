"""Somebody has stolen a client's password, prune rights included: history survives all they do."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from backupgw.kvstore.ledger import Amount, SQLiteLedger
from backupgw.restserver.paths import TYPES
from tests.end_to_end import tree
from tests.restserver.client import Client
from tests.servers import peers
from tests.servers.gateway import Gateway
from tests.servers.restic import Restic

SETTINGS = """
[places.path]
layers = [{{ layer = "trash", keep = "30 days" }}]
[state]
folder = "{state}"
[rest.quota.server]
bytes = "1 GB"
[[rest.quota.user]]
who = "*"
bytes = "500 MB"
"""


def operate(config: Path, folder: Path, *arguments: str) -> Any:
    """Run the operator's command and return what it says."""
    done = subprocess.run(
        [
            *(Gateway.program()[0], "rest", *arguments),
            *("--json", "--path", str(folder), "--config", str(config)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def objects_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "locks" not in path.parts
    }


def in_trash(folder: Path) -> set[str]:
    found = (folder / ".backupgw-trash").rglob("*")
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


def delete_everything(client: Client, repo: str) -> int:
    """Remove all that the protocol can name, by requests of its own."""
    deleted = 0
    for kind in TYPES:
        for name in json.loads(client.call("GET", f"/{repo}/{kind}/").text):
            assert client.status("DELETE", f"/{repo}/{kind}/{name}") == 200
            deleted += 1
    assert client.status("DELETE", f"/{repo}/config") == 200
    return deleted


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_hostile_prune_is_undone(small_tree: Path, repositories: Path, tmp_path: Path) -> None:
    restic_peer = peers.get(peers.RESTIC_NEW)
    config = tmp_path / "backupgw.toml"
    config.write_text(SETTINGS.format(state=tmp_path / "state"))
    stored = repositories / "ann/laptop"
    flags = ["--config", str(config), "--private-repos", "--workers", "2"]
    with Gateway(repositories, users={"ann": "a", "bob": "b"}, flags=flags) as server:
        address = server.repository("ann/laptop", user="ann")
        ann = Restic(restic_peer, address, tmp_path / "home")
        ann.init(stored)
        operate(config, repositories, "quota", "--count")  # the test made its key cheaper
        ann.run("backup", ".", directory=small_tree)
        first = tree.describe(small_tree)
        (small_tree / "more").write_bytes(os.urandom(3_000_000))
        ann.run("backup", ".", directory=small_tree)
        second = tree.describe(small_tree)
        snapshots = ann.snapshots()
        before = objects_below(stored)
        moment = time.time()

        # The thief has the password of the server and of the repository.
        ann.run("forget", "--prune", *snapshots)
        assert ann.snapshots() == []
        raw = Client(server, "ann", "a")
        assert delete_everything(raw, "ann/laptop") > 0
        thief = Restic(restic_peer, address, tmp_path / "thief", password="mine")
        thief.init(stored)
        operate(config, repositories, "quota", "--count")
        thief.run("backup", ".", directory=tmp_path / "home")
        thief.run("forget", "--prune", thief.snapshots()[0])
        assert ann.attempt("snapshots").returncode != 0

        kept = in_trash(repositories)
        assert len(kept) >= len(before)
        for name in [*list(kept)[:20], ".backupgw-trash", ".backupgw-trash/clock"]:
            for spelled in (quote(name), quote(name, safe=""), f"ann/laptop/data/../../../{name}"):
                for method in ("GET", "HEAD", "DELETE", "POST"):
                    assert raw.status(method, f"/{spelled}") in (400, 403, 404, 405), spelled
        assert in_trash(repositories) == kept

        (summary,) = operate(config, repositories, "trash", "list", "--summary")
        assert (summary["repository"], summary["by"]) == ("ann/laptop", ["ann"])
        assert summary["objects"] >= len(before)
        when = datetime.fromtimestamp(moment, UTC).isoformat()
        since = ["--repo", "ann/laptop", "--since", when, "--exact"]
        promised = operate(config, repositories, "trash", "restore", *since, "--dry-run")
        assert objects_below(stored) != before
        restored = operate(config, repositories, "trash", "restore", *since)
        assert {**promised, "dry_run": False} == restored
        assert restored["failed"] == 0
        assert restored["replaced"] == 1, "the thief's config is out of the way"

        assert objects_below(stored) == before
        assert ann.snapshots() == snapshots
        ann.check()
        for snapshot, wanted in zip(snapshots, (first, second), strict=True):
            target = tmp_path / snapshot
            ann.run("restore", snapshot, "--target", target)
            assert tree.differences(wanted, tree.describe(target)) == []
        again = operate(config, repositories, "trash", "restore", *since)
        assert (again["objects"], again["removed"]) == (0, 0), "done again, it changes nothing"
        assert objects_below(stored) == before
        ann.run("backup", ".", directory=small_tree)
    assert used(repositories) == on_disk(repositories), "what lies in the trash counts"


def used(folder: Path) -> Amount:
    with SQLiteLedger(str(folder / ".backupgw-ledger/ledger.sqlite3")) as ledger:
        server = next(usage for usage in ledger.usages() if usage.scope == "server")
    assert server.reserved == Amount()
    return server.used


def on_disk(folder: Path) -> Amount:
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and "locks" not in path.parts
        and ".backupgw-ledger" not in path.parts
        and path != folder / ".backupgw-trash/clock"
    ]
    return Amount(sum(path.stat().st_size for path in files), len(files))
