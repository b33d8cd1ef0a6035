"""restic through the gateway on places behind rclone, in fair and in foul weather."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.kvstore.rclone_places import obscured
from tests.servers import peers
from tests.servers.double import Faults
from tests.servers.http_proxy import faulty
from tests.servers.place_gateway import PlaceGateway
from tests.servers.restic import Restic
from tests.servers.s3 import Moto

pytestmark = pytest.mark.peers(peers.RCLONE, peers.RESTIC_NEW)

KEY_ID = "AKIDTESTSERVER"
SECRET = "secretKeyWithManyLetters0123456789abcdef"


def rclone_of(pid: int) -> int | None:
    """The id of the rclone that a process has started."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "rclone":
                return int(child)
    return None


def folder_of(tmp_path: Path) -> Path:
    """A folder for the gateway's settings."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    return folder


def whole_cycle(restic: Restic, files: Path, target: Path) -> None:
    """backup, check --read-data, forget --prune, restore: the same tree comes back."""
    before = tree.describe(files)
    restic.run("backup", "--pack-size", "4", ".", directory=files)
    (files / "another").write_bytes(os.urandom(300_000))
    restic.run("backup", ".", directory=files)
    restic.check()
    first, _second = restic.snapshots()
    restic.run("restore", first, "--target", target)
    assert tree.differences(before, tree.describe(target)) == []
    restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    restic.check()


def test_a_backup_while_rclone_is_killed(small_tree: Path, tmp_path: Path) -> None:
    (small_tree / "bulk").write_bytes(os.urandom(40_000_000))
    place: dict[str, object] = {
        "url": f"rclone::local:{tmp_path}/place",
        "binary": str(peers.get(peers.RCLONE).path),
        "config": "/dev/null",
        "layers": ["retry"],
    }
    with PlaceGateway(folder_of(tmp_path), place) as server:
        restic = Restic(peers.get(peers.RESTIC_NEW), server.repository("mine"), tmp_path / "home")
        restic.init_there()
        killed: list[int] = []
        over = threading.Event()

        def kill() -> None:
            while not over.wait(0.5) and len(killed) < 4:
                pid = rclone_of(server.process.pid)
                if pid is not None and pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            restic.run("backup", "--pack-size", "4", "--limit-upload", "20000", "bulk",
                       directory=small_tree)  # fmt: skip
        finally:
            over.set()
            killer.join(60)
        assert killed, "the backup was over before rclone could be killed"
        restic.run("forget", "latest", "--prune")
        whole_cycle(restic, small_tree, tmp_path / "restored")
    left = [path for path in (tmp_path / "place").rglob("*") if ".backupgw-tmp-" in path.name]
    assert len(left) <= len(killed), "more than what a killed rclone was writing was left"


@pytest.mark.soak
def test_a_backup_to_s3_where_a_fifth_of_all_requests_fails(
    small_tree: Path, tmp_path: Path
) -> None:
    with Moto() as server_of_s3, faulty(server_of_s3.endpoint) as proxy:
        place: dict[str, object] = {
            "url": "rclone::s3:bucket/place",
            "binary": str(peers.get(peers.RCLONE).path),
            "config": "/dev/null",
            "layers": ["retry"],
            "provider": "Other",
            "endpoint": proxy.url,
            "force_path_style": True,
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
        }
        with PlaceGateway(folder_of(tmp_path), place) as server:
            restic = Restic(
                peers.get(peers.RESTIC_NEW), server.repository("mine"), tmp_path / "home"
            )
            restic.run("init")  # two requests for each of 256 folders
            before = tree.describe(small_tree)
            proxy.faults = Faults(rate=0.2, seed=1)
            restic.run("backup", "--pack-size", "4", ".", directory=small_tree)
            (small_tree / "another").write_bytes(os.urandom(300_000))
            restic.run("backup", ".", directory=small_tree)
            first, _second = restic.snapshots()
            restic.run("restore", first, "--target", tmp_path / "restored")
            assert tree.differences(before, tree.describe(tmp_path / "restored")) == []
            restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
            assert proxy.faults.hit > 20
            proxy.faults = Faults()
            restic.check()
            printed = "\n".join(server.process.lines)
        assert SECRET not in printed
        assert "Traceback" not in printed


@pytest.mark.soak
def test_a_repository_that_rclone_encrypts(small_tree: Path, tmp_path: Path) -> None:
    place: dict[str, object] = {
        "url": "rclone::crypt:place",
        "binary": str(peers.get(peers.RCLONE).path),
        "config": "/dev/null",
        "layers": ["retry"],
        "remote": f":local:{tmp_path}/sealed",
        "password": {"env": "PASSWORD"},
    }
    folder = folder_of(tmp_path)
    with PlaceGateway(folder, place, environment={"PASSWORD": obscured("a password")}) as server:
        restic = Restic(peers.get(peers.RESTIC_NEW), server.repository("mine"), tmp_path / "home")
        restic.run("init")
        whole_cycle(restic, small_tree, tmp_path / "restored")
    kept = [path.name for path in (tmp_path / "sealed").rglob("*") if path.is_file()]
    assert kept
    assert "config" not in kept
