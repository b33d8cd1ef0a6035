"""The main job: a user's whole life with restic through the server, on real files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.rest_server import TCP, TLS, UNIX, RestServer
from tests.servers.restic import Restic
from tests.servers.tls import Certificate

USERS = {"alice": "wonder land:7", "bob": "builder"}
LEAST_BYTES = 300_000_000

OPEN = "open"
LOGIN = "login"
PRIVATE = "private"


def case(restic: str, transport: str, access: str, *marks: pytest.MarkDecorator) -> object:
    return pytest.param(
        restic,
        transport,
        access,
        id=f"{restic}-{transport}-{access}",
        marks=[pytest.mark.peers(restic), *marks],
    )


CHOSEN = [(peers.RESTIC_NEW, TLS, PRIVATE)]
"""What every change must pass. The old restic: test_commands.py. Unix sockets: test_access.py."""

ALL = [
    (restic, transport, access)
    for restic in (peers.RESTIC_OLD, peers.RESTIC_NEW)
    for transport in (TCP, TLS, UNIX)
    for access in (OPEN, LOGIN, PRIVATE)
    if not (restic == peers.RESTIC_OLD and transport == UNIX)
]

CASES = [case(*chosen) for chosen in CHOSEN] + [
    case(*other, pytest.mark.soak) for other in ALL if other not in CHOSEN
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """At least 300 MB of real files, which each test changes between its two backups."""
    root = tmp_path_factory.mktemp("files") / "tree"
    tree.build(root)
    yield root
    tree.remove(root)


@pytest.mark.parametrize(("restic_name", "transport", "access"), CASES)
def test_whole_cycle(
    restic_name: str,
    transport: str,
    access: str,
    files: Path,
    repositories: Path,
    tmp_path: Path,
    certificate: Certificate,
    server_class: type[RestServer],
) -> None:
    """init, two backups, check --read-data, forget --prune, restore: the same tree comes back."""
    users = None if access == OPEN else USERS
    user = None if access == OPEN else "alice"
    with server_class(
        repositories,
        transport=transport,
        certificate=certificate,
        users=users,
        private_repos=access == PRIVATE,
    ) as server:
        repository = server.repository("alice/laptop", user=user)
        restic = Restic(
            peers.get(restic_name), repository, tmp_path / "home", certificate=server.certificate
        )
        restic.run("init")

        before = tree.describe(files)
        size = sum(entry.size for entry in before.values())
        assert size >= LEAST_BYTES, "the tree is too small to show anything"
        summary = _backup(restic, files)
        assert summary["total_bytes_processed"] >= size

        tree.change(files, seed=len(before))
        after = tree.describe(files)
        assert after != before
        summary = _backup(restic, files)
        assert summary["data_added"] < size / 4, "the second backup was not incremental"
        assert summary["files_unmodified"] > summary["files_changed"] + summary["files_new"]

        restic.check()
        first, second = restic.snapshots()
        _restore_and_compare(restic, first, tmp_path / "first", before)

        restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
        assert restic.snapshots() == [second]
        restic.check()
        _restore_and_compare(restic, "latest", tmp_path / "latest", after)

        restic.run("unlock")
        assert restic.run("list", "locks", "--no-lock").stdout == ""
    assert not list(repositories.rglob("*tmp*")), "something temporary was left behind"


def _backup(restic: Restic, files: Path) -> dict[str, int]:
    done = restic.run("backup", "--json", ".", directory=files)
    assert done.stderr == "", "restic complained during the backup"
    return dict(restic.last_message(done.stdout))


def _restore_and_compare(
    restic: Restic, snapshot: str, target: Path, wanted: dict[bytes, tree.Entry]
) -> None:
    restic.run("restore", snapshot, "--target", target)
    assert tree.differences(wanted, tree.describe(target)) == []
    tree.remove(target)
