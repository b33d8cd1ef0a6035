"""Levels of access with a real restic: what each user can still do, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.test_access import files_below, refused
from tests.servers import peers
from tests.servers.gateway import Gateway
from tests.servers.restic import Restic

USERS = {"reader": "r", "writer": "w", "owner": "o"}
RULES = """
[[auth.rule]]
who = ["reader"]
allow = ["read"]
on = ["repository:*/team"]
[[auth.rule]]
who = ["writer"]
allow = ["write-only"]
on = ["repository:*/team"]
[[auth.rule]]
who = ["owner"]
allow = ["full"]
on = ["repository:*/team"]
"""


@pytest.mark.peers(peers.RESTIC_NEW)
def test_levels_of_access(small_tree: Path, repositories: Path, tmp_path: Path) -> None:
    """Several share a repository, each with no more than they need; one of them with a token of
    the owner's that adds and destroys nothing."""
    config = tmp_path / "backupgw.toml"
    config.write_text(f'{RULES}\n[state]\nfolder = "{tmp_path / "state"}"\n')
    made = subprocess.run(
        [
            *(Gateway.program()[0], "token", "create", "--config", str(config)),
            *("--user", "owner", "--allow", "append", "--on", "repository:*/team"),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    shown = {"RESTIC_REST_USERNAME": "owner", "RESTIC_REST_PASSWORD": made.stdout.strip()}
    with Gateway(repositories, users=USERS, flags=["--config", str(config)]) as server:

        def restic(user: str) -> Restic:
            address = server.repository("team", user=user)
            return Restic(peers.get(peers.RESTIC_NEW), address, tmp_path / user)

        def denied(user: Restic, *command: str) -> bool:
            found = refused(user, *command)
            # What was ended in the middle leaves a lock.
            user.run("unlock", "--remove-all")
            return found

        owner, reader, writer = map(restic, ("owner", "reader", "writer"))
        peer = peers.get(peers.RESTIC_NEW)
        laptop = Restic(peer, server.repository("team"), tmp_path / "laptop", environment=shown)
        owner.init(repositories / "team")
        owner.run("backup", ".", directory=small_tree)
        (snapshot,) = owner.snapshots()

        reader.run("restore", snapshot, "--target", tmp_path / "by reader")
        reader.check()
        assert denied(reader, "backup", str(small_tree))

        # The parent's folders are read as well, so a machine that may not read goes without it.
        writer.run("backup", "--force", ".", directory=small_tree)
        assert denied(writer, "restore", "latest", "--target", str(tmp_path / "by writer"))
        laptop.run("backup", ".", directory=small_tree)
        laptop.run("restore", "latest", "--target", tmp_path / "by laptop")
        before = files_below(repositories)
        for restricted in (reader, writer, laptop):
            assert denied(restricted, "forget", snapshot)
        assert files_below(repositories) == before, "history was changed"
        elsewhere = Restic(peer, server.repository("other"), tmp_path / "l2", environment=shown)
        assert "(403)" in elsewhere.fail("init")

        owner.run("forget", snapshot, "--prune")
        assert len(owner.snapshots()) == 2
        owner.check()
