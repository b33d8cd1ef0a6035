"""Either server takes over the other's folder: an operator can move to ours, and back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.rest_server import RestServer
from tests.servers.restic import Restic

TYPES = ("data", "index", "keys", "locks", "snapshots")

pytestmark = pytest.mark.peers(peers.REST_SERVER)


def layout(folder: Path) -> dict[str, tuple[str, int]]:
    """Kind and mode of everything below a folder; names of random ids are made the same."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
        name = str(path.relative_to(folder))
        if kind == "file" and len(path.name) == 64:
            name = f"{path.parts[len(folder.parts)]}/an object"
        found[name] = (kind, stat.S_IMODE(status.st_mode))
    return found


@pytest.mark.parametrize("ours_first", [False, True], ids=["to-ours", "to-rest-server"])
def test_the_other_server_carries_on(
    ours_first: bool,
    each_restic_peer: peers.Peer,
    small_tree: Path,
    repositories: Path,
    tmp_path: Path,
    server_class: type[RestServer],
) -> None:
    """What one wrote passes check --read-data on the other, which writes on, and back again."""
    order: list[type[RestServer]] = (
        [server_class, RestServer] if ours_first else [RestServer, server_class]
    )
    states: list[dict[bytes, tree.Entry]] = []
    for turn, kind in enumerate([*order, order[0]]):
        with kind(repositories) as server:
            repository = server.repository("user/moved")
            # Without a cache: every byte is the server's.
            restic = Restic(each_restic_peer, repository, tmp_path / f"home {turn}")
            if turn == 0:
                restic.init(repositories / "user/moved")
            else:
                restic.check()
                restic.run("restore", "latest", "--target", tmp_path / f"restored {turn}")
                restored = tree.describe(tmp_path / f"restored {turn}")
                assert tree.differences(states[-1], restored) == []
                tree.change(small_tree, seed=turn)
            restic.run("backup", ".", directory=small_tree)
            states.append(tree.describe(small_tree))
            if turn == 1:
                restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
            restic.check()


@pytest.mark.peers(peers.RESTIC_NEW)
@pytest.mark.parametrize(
    ("flags", "umask", "folder_mode", "file_mode"),
    [([], 0o022, 0o700, 0o600), (["--group-accessible-repos"], 0o007, 0o770, 0o660)],
    ids=["private", "group"],
)
def test_layout_on_disk(
    flags: list[str],
    umask: int,
    folder_mode: int,
    file_mode: int,
    small_tree: Path,
    tmp_path: Path,
    server_class: type[RestServer],
) -> None:
    """The same folders, files and modes as rest-server's."""
    peer = peers.get(peers.RESTIC_NEW)
    layouts = []
    kinds: list[type[RestServer]] = [RestServer, server_class]
    previous = os.umask(umask)
    try:
        for number, kind in enumerate(kinds):
            folder = tmp_path / f"served {number}"
            folder.mkdir()
            with kind(folder, flags=flags) as server:
                restic = Restic(peer, server.repository("a/b"), tmp_path / f"home {number}")
                restic.run("init")
                restic.run("backup", ".", directory=small_tree)
            layouts.append(layout(folder / "a/b"))
    finally:
        os.umask(previous)
    theirs, ours = layouts
    assert ours == theirs
    assert ours["config"] == ("file", file_mode)
    for name in (*TYPES, *(f"data/{number:02x}" for number in range(256))):
        assert ours[name] == ("folder", folder_mode), name
    for name in ("data", "index", "keys", "snapshots"):
        assert ours[f"{name}/an object"] == ("file", file_mode)
