"""A power cut loses nothing that a client was told is stored, and leaves nothing half-written.

The server runs inside User-Mode Linux on a disk whose writes are dropped from a random moment on;
see power_loss_guest for what a round is, and promises for what counts as told.
"""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.faults.server_process import (
    ROOT,
    Program,
    flawed,
    gateway,
    gateway_without_syncs,
)
from tests.servers import peers, uml

pytestmark = [
    pytest.mark.root("linux.uml", "modprobe", "dmsetup", "mkfs.ext4"),
    pytest.mark.timeout(300),
]


@dataclass(frozen=True, slots=True)
class Round:
    """What a round saw; lines that say what is wrong, and the number of promises that counted."""

    seed: int
    busy: bool
    sharp: bool
    kept: int
    broken: list[str]
    wrong: list[str]
    unexpected: list[str]


def boot(
    module: str, program: Program, work: Path, *arguments: str, rounds: int, filesystem: str
) -> list[dict[str, Any]]:
    """Boot a guest that plays rounds on a disk of its own; return what each of them saw."""
    seed = int(os.environ.get("BACKUPGW_FAULT_SEED", random.randrange(1 << 30)))
    print(f"BACKUPGW_FAULT_SEED={seed}")
    disk = work / "disk.img"
    with disk.open("wb") as file:
        file.truncate(512 << 20)
    guest = [sys.executable, "-m", f"tests.faults.{module}", "/dev/ubda", filesystem]
    finished = uml.run(
        [*guest, str(seed), str(rounds), *arguments, "--", *program.command],
        disks=[disk],
        modules=["dm-flakey"],
        environment={"PYTHONDONTWRITEBYTECODE": "1", **program.environment},
        directory=ROOT,
        timeout=120 + 60 * rounds,
    )
    assert finished.status == 0, f"{finished.output}\n{finished.console[-2000:]}"
    lines = [line for line in finished.output.splitlines() if line.startswith("{")]
    print(*lines, sep="\n")
    return [json.loads(line) for line in lines]


def play(program: Program, work: Path, *, rounds: int = 3, filesystem: str = "ext4") -> list[Round]:
    saw = boot("power_loss_guest", program, work, "all", rounds=rounds, filesystem=filesystem)
    assert len(saw) == rounds
    return [Round(**entry) for entry in saw]


def is_caught(program: Program, work: Path) -> bool:
    """Whether one of a dozen rounds finds a promise broken."""
    saw = boot("power_loss_guest", program, work, "until-broken", rounds=12, filesystem="ext4")
    return bool(saw[-1]["broken"] or saw[-1]["wrong"])


def assert_kept(rounds: list[Round]) -> None:
    for entry in rounds:
        assert entry.unexpected == []
        assert entry.kept > 0, "nothing was acknowledged before the cut: the round shows nothing"
        assert entry.broken == []
        assert entry.wrong == []


def test_acknowledged_blobs_survive_a_power_cut(tmp_path: Path) -> None:
    assert_kept(play(gateway(), tmp_path))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "filesystem", ["ext4", pytest.param("xfs", marks=pytest.mark.root("mkfs.xfs"))]
)
def test_acknowledged_blobs_survive_fifty_power_cuts(tmp_path: Path, filesystem: str) -> None:
    assert_kept(play(gateway(), tmp_path, rounds=50, filesystem=filesystem))


def back_up(program: Program, work: Path) -> dict[str, Any]:
    restic = str(peers.get(peers.RESTIC_NEW).path)
    module = "power_loss_restic_guest"
    [saw] = boot(module, program, work, restic, rounds=1, filesystem="ext4")
    return saw


@pytest.mark.soak
@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_finished_backup_survives_a_power_cut(tmp_path: Path) -> None:
    saw = back_up(gateway(), tmp_path)
    assert saw["wrong"] == ""
    assert saw["snapshots"] == 1


@pytest.mark.soak
@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_backup_lost_to_a_power_cut_is_seen(tmp_path: Path) -> None:
    """Its control: without syncs the same backup is gone or damaged."""
    assert back_up(gateway_without_syncs(), tmp_path)["wrong"]


def test_a_gateway_told_not_to_sync_is_caught(tmp_path: Path) -> None:
    """The control: without syncs the same rounds lose what was acknowledged."""
    assert is_caught(gateway_without_syncs(), tmp_path)


@pytest.mark.parametrize(
    "flaw", [pytest.param("no-file-sync", marks=pytest.mark.soak), "no-folder-sync"]
)
def test_each_missing_sync_is_caught(tmp_path: Path, flaw: str) -> None:
    """The harness's own control, on a stand-in server with one defect."""
    assert is_caught(flawed(flaw), tmp_path)
