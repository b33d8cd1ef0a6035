"""restic through the gateway on Backblaze B2 (a double), in fair and in foul weather."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.servers import peers
from tests.servers.b2_double import KEY, KEY_ID, B2Double, error_answer
from tests.servers.child import Child
from tests.servers.double import Double, Faults
from tests.servers.place_gateway import PlaceGateway
from tests.servers.restic import Restic

pytestmark = pytest.mark.peers(peers.RESTIC_NEW)


@pytest.fixture
def double() -> Iterator[B2Double]:
    with B2Double() as found:
        yield found


def gateway(double: Double, folder: Path) -> PlaceGateway:
    place: dict[str, object] = {
        "url": "backblaze:backups-of-tests/place",
        "realm": double.url,
        "key_id": KEY_ID,
        "application_key": KEY,
        "layers": ["retry"],
    }
    folder.mkdir()
    return PlaceGateway(folder, place)


def test_a_backup_where_much_fails(double: B2Double, small_tree: Path, tmp_path: Path) -> None:
    (small_tree / "bulk").write_bytes(os.urandom(12_000_000))
    before = tree.describe(small_tree)
    with gateway(double, tmp_path / "gateway") as server:
        restic = Restic(peers.get(peers.RESTIC_NEW), server.repository("mine"), tmp_path / "home")
        restic.init_there()
        double.faults = Faults(rate=0.2, seed=1, answer=error_answer)
        restarts = [threading.Timer(seconds, double.restart) for seconds in (0.7, 1.5)]
        for each in restarts:
            each.start()
        restic.run("backup", "--pack-size", "8", ".", directory=small_tree)
        for each in restarts:
            each.join()
        (small_tree / "another").write_bytes(os.urandom(300_000))
        restic.run("backup", ".", directory=small_tree)
        first, _second = restic.snapshots()
        restic.run("restore", first, "--target", tmp_path / "restored")
        assert tree.differences(before, tree.describe(tmp_path / "restored")) == []
        double.faults = Faults()
        restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
        restic.check()
        printed = "\n".join(server.process.lines)
    assert double.service.unfinished == {}
    assert KEY not in printed
    assert "4_token_" not in printed
    assert "Traceback" not in printed


@pytest.mark.soak
def test_a_key_revoked_in_the_middle_of_a_backup(
    double: B2Double, small_tree: Path, tmp_path: Path
) -> None:
    (small_tree / "bulk").write_bytes(os.urandom(20_000_000))
    with gateway(double, tmp_path / "gateway") as server:
        restic = Restic(peers.get(peers.RESTIC_NEW), server.repository("mine"), tmp_path / "home")
        restic.init_there()
        restic.run("backup", "--exclude", "bulk", ".", directory=small_tree)
        revoke = threading.Timer(0.8, lambda: setattr(double.service, "revoked", True))
        revoke.start()
        # restic itself goes on trying for 15 minutes; it is ended here, as an operator would.
        with restic_process(restic, small_tree) as process:
            revoke.join()
            assert wait_for_refusals(double)
            process.kill()
        double.service.revoked = False
        restic.run("unlock", "--remove-all")
        restic.check()
        restic.run("backup", ".", directory=small_tree)
        restic.check()
        printed = "\n".join(server.process.lines)
    assert KEY not in printed


def restic_process(restic: Restic, folder: Path) -> Child[bytes]:
    return Child(
        restic.command("backup", "--limit-upload", "8000", "bulk"),
        env=restic.environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_refusals(double: Double) -> bool:
    event = threading.Event()
    for _ in range(100):
        if double.calls.count(lambda call: call.status == 401) >= 3:
            return True
        event.wait(0.1)
    return False
