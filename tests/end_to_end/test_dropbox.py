"""restic through the server, with the repository in Dropbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.end_to_end.gateway_on_place import served, sound
from tests.servers import peers
from tests.servers.double import Fault, Faults
from tests.servers.dropbox_double import DropboxDouble
from tests.servers.restic import Restic

KINDS = (Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOST, Fault.CUT)


@pytest.fixture
def dropbox() -> Iterator[DropboxDouble]:
    with DropboxDouble() as dropbox:
        yield dropbox


@pytest.fixture
def client(dropbox: DropboxDouble, tmp_path: Path) -> Iterator[Restic]:
    place = {
        "url": '"dropbox:Backups/restic"',
        "endpoint": f'"{dropbox.url}"',
        "app_key": f'"{dropbox.service.app_key}"',
        "refresh_token": '{ env = "GRANT" }',
    }
    with served(place, tmp_path, {"GRANT": dropbox.service.refresh_token}) as repository:
        yield Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home")


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_repositorys_life_in_a_dropbox_that_fails(
    dropbox: DropboxDouble, client: Restic, small_tree: Path, tmp_path: Path
) -> None:
    client.run("init")
    dropbox.faults = Faults(rate=0.1, kinds=KINDS, seed=3)
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.wait(1.5):
            dropbox.restart()

    saboteur = threading.Thread(target=interrupt)
    saboteur.start()
    try:
        client.run("backup", ".", directory=small_tree)
    finally:
        stop.set()
        saboteur.join()
    dropbox.faults = Faults()
    sound(client, tree.describe(small_tree), tmp_path / "restored")
    (small_tree / "more").write_bytes(bytes(range(256)) * 5000)
    client.run("backup", ".", directory=small_tree)
    client.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    sound(client, tree.describe(small_tree), tmp_path / "restored")


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_grant_that_is_withdrawn_in_mid_backup(
    dropbox: DropboxDouble, client: Restic, small_tree: Path
) -> None:
    client.run("init")
    client.run("backup", ".", directory=small_tree)
    (small_tree / "more").write_bytes(b"".join(n.to_bytes(4, "big") for n in range(3_000_000)))
    dropbox.calls.clear()

    def withdraw() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not dropbox.calls.count(
            lambda call: call.path.startswith("/2/files/upload")
        ):
            time.sleep(0.01)
        dropbox.service.revoked = True

    withdrawing = threading.Thread(target=withdraw)
    withdrawing.start()
    done = client.attempt("backup", "--retry-lock", "0s", ".", directory=small_tree)
    withdrawing.join()
    assert done.returncode != 0
    assert "403" in done.stderr, f"restic is told why: {done.stderr[-2000:]}"
    dropbox.service.revoked = False
    client.run("unlock")
    client.run("check", "--read-data")
