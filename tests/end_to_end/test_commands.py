"""Every restic command that touches a repository, once, on a small one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.child import Child
from tests.servers.rest_server import RestServer
from tests.servers.restic import Restic
from tests.servers.restic_key import make_cheap

TYPES = ("blobs", "packs", "index", "snapshots", "keys", "locks")


def test_looking_at_a_repository(
    restic_peer: peers.Peer,
    small_tree: Path,
    repositories: Path,
    tmp_path: Path,
    server_class: type[RestServer],
) -> None:
    """list, stats, find, ls, cat, dump and diff show what was backed up."""
    with server_class(repositories) as server:
        restic = Restic(restic_peer, server.repository("looking"), tmp_path / "home")
        restic.init(repositories / "looking")
        restic.run("backup", ".", directory=small_tree)
        (small_tree / "another").write_text("new")
        restic.run("backup", ".", directory=small_tree)
        first, second = restic.snapshots()

        for kind in TYPES:
            lines = restic.run("list", kind, "--no-lock").stdout.split()
            assert bool(lines) == (kind != "locks"), f"list {kind} printed {lines}"
        for mode in ("restore-size", "files-by-contents", "blobs-per-file", "raw-data"):
            assert restic.json("stats", "--mode", mode)["total_size"] > 1_000_000
        assert "/awkward/plain" in restic.run("find", "plain").stdout
        assert "/awkward/quote" in restic.run("ls", second).stdout
        assert "+    /another" in restic.run("diff", first, second).stdout

        assert restic.run("dump", "latest", "/another").stdout == "new"
        archive = tmp_path / "awkward.tar"
        archive.write_bytes(_raw(restic, "dump", "latest", "/awkward"))
        names = subprocess.run(
            ["tar", "-tf", archive], capture_output=True, check=True
        ).stdout.splitlines()
        assert len(names) > 50

        for kind in ("config", "masterkey"):
            assert restic.json("cat", kind)
        assert restic.json("cat", "snapshot", first)["paths"] == [str(small_tree)]
        for kind in ("index", "snapshot", "key"):
            listed = "keys" if kind == "key" else "snapshots" if kind == "snapshot" else "index"
            identifier = restic.run("list", listed, "--no-lock").stdout.split()[0]
            assert restic.json("cat", kind, identifier)
        blob = restic.run("list", "blobs", "--no-lock").stdout.splitlines()[0].split()[1]
        assert _raw(restic, "cat", "blob", blob)
        pack = restic.run("list", "packs", "--no-lock").stdout.split()[0]
        assert _raw(restic, "cat", "pack", pack)


def test_changing_a_repository(
    each_restic_peer: peers.Peer,
    small_tree: Path,
    repositories: Path,
    tmp_path: Path,
    server_class: type[RestServer],
) -> None:
    """tag, rewrite, key, copy, repair, recover, migrate and prune leave a whole repository."""
    with server_class(repositories) as server:
        restic = Restic(each_restic_peer, server.repository("changing"), tmp_path / "home")
        restic.init(repositories / "changing", "--repository-version", "1")
        restic.run("backup", ".", directory=small_tree)
        before = tree.describe(small_tree)

        restic.run("tag", "--add", "kept,twice", "latest")
        assert restic.json("snapshots")[0]["tags"] == ["kept", "twice"]

        if each_restic_peer.numbers >= (0, 15):
            restic.run("rewrite", "--forget", "--exclude", "random", "latest")
            assert "/awkward/random" not in restic.run("ls", "latest").stdout
            del before[b"awkward/random"]

        restic.run("migrate", "upgrade_repo_v2")
        assert restic.json("cat", "config")["version"] == 2

        _change_keys(restic, tmp_path)
        make_cheap(repositories / "changing", restic.environment["RESTIC_PASSWORD"])

        other = Restic(each_restic_peer, server.repository("copy of it"), tmp_path / "other home")
        source = {
            "RESTIC_FROM_REPOSITORY": restic.repository,
            "RESTIC_FROM_PASSWORD": restic.environment["RESTIC_PASSWORD"],
        }
        other.init(repositories / "copy of it", "--copy-chunker-params", environment=source)
        other.run("copy", environment=source)
        other.check()
        other.run("restore", "latest", "--target", tmp_path / "restored")
        found = tree.describe(tmp_path / "restored")
        before.pop(b"awkward", None)
        found.pop(b"awkward", None)
        assert tree.differences(before, found) == []

        if each_restic_peer.numbers >= (0, 16):
            restic.run("repair", "index", "--read-all-packs")
            restic.run("repair", "snapshots", "--forget")
        else:
            restic.run("rebuild-index", "--read-all-packs")
        restic.run("recover")
        restic.run("forget", "latest", "--prune")
        restic.run(
            "prune", "--repack-small" if each_restic_peer.numbers >= (0, 15) else "--verbose"
        )
        restic.check()


def _change_keys(restic: Restic, folder: Path) -> None:
    """Add a key, change the password, remove the added key; the old password opens no more."""
    new = folder / "new password"
    new.write_text("another horse")
    newest = folder / "newest password"
    newest.write_text("third horse")
    restic.run("key", "add", "--new-password-file", new)
    assert len(restic.json("key", "list")) == 2
    restic.run("key", "passwd", "--new-password-file", newest)
    old = restic.environment["RESTIC_PASSWORD"]
    restic.environment["RESTIC_PASSWORD"] = newest.read_text()
    keys = restic.json("key", "list")
    assert len(keys) == 2
    restic.run("key", "remove", next(key["id"] for key in keys if not key["current"]))
    for gone in (old, new.read_text()):
        printed = restic.fail("snapshots", environment={"RESTIC_PASSWORD": gone})
        assert "wrong password or no key found" in printed


def test_unlock_after_a_killed_backup(
    restic_peer: peers.Peer,
    repositories: Path,
    tmp_path: Path,
    server_class: type[RestServer],
) -> None:
    """A backup that died leaves its lock; it keeps forget away until unlock takes it."""
    with server_class(repositories) as server:
        restic = Restic(restic_peer, server.repository("locked"), tmp_path / "home")
        restic.init(repositories / "locked")
        command = [str(restic_peer.path), "backup", "--verbose", "--stdin"]
        with Child(
            command,
            env=restic.environment,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as backup:
            assert backup.stdout is not None
            # The index is loaded under the lock, and standard input never ends.
            assert any("load index files" in line for line in backup.stdout)
            backup.kill()
        assert len(restic.run("list", "locks", "--no-lock").stdout.split()) == 1
        assert "locked" in restic.fail("forget", "--keep-last", "1", "--prune")
        restic.run("unlock")
        assert restic.run("list", "locks", "--no-lock").stdout == ""
        restic.run("forget", "--keep-last", "1", "--prune")
        restic.check()


@pytest.mark.peers(peers.RESTIC_NEW)
def test_repository_without_a_password(
    repositories: Path, small_tree: Path, tmp_path: Path, server_class: type[RestServer]
) -> None:
    """The newest restic can do without a repository password; the server notices nothing."""
    with server_class(repositories) as server:
        restic = Restic(
            peers.get(peers.RESTIC_NEW),
            server.repository("open"),
            tmp_path / "home",
            password=None,
        )
        restic.run("init")
        restic.run("backup", ".", directory=small_tree)
        restic.check()


def test_repository_at_the_root(
    restic_peer: peers.Peer,
    small_tree: Path,
    repositories: Path,
    tmp_path: Path,
    server_class: type[RestServer],
) -> None:
    """The server's own address is a repository too, beside one two folders deep."""
    paths = ("", "Ünï cöde/with blanks")
    with server_class(repositories) as server:
        for number, path in enumerate(paths):
            restic = Restic(restic_peer, server.repository(path), tmp_path / f"home {number}")
            restic.init(repositories / path)
            restic.run("backup", ".", directory=small_tree)
            assert len(restic.snapshots()) == 1
        for path in paths:
            Restic(restic_peer, server.repository(path), tmp_path / "home").check()
        assert "already" in restic.fail("init")


def _raw(restic: Restic, *arguments: str) -> bytes:
    return subprocess.run(
        [restic.peer.path, *arguments],
        env=restic.environment,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
