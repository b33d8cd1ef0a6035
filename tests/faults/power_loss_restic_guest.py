"""A backup that restic says is done, then a power cut; run inside User-Mode Linux.

Each round: a fresh file system and server, restic's init and backup, the cut in the moment in
which restic ends with success, the file system mounted from what the disk holds, the server
started again, and restic's own check of every byte. Prints one JSON object a round.

    python -m tests.faults.power_loss_restic_guest DEVICE FILESYSTEM SEED ROUNDS RESTIC \\
        -- COMMAND OF THE SERVER
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.faults.device import Disk
from tests.faults.server_process import Program, Running, running

MOUNT = Path("/mnt/victim")
TREE = Path("/run/tree")


def restic(program: str, port: int, *arguments: str) -> str:
    """Run restic; return what it printed, or raise with it."""
    done = subprocess.run(
        [program, "--no-cache", *arguments],
        env={
            "HOME": "/run",
            "TMPDIR": "/run",
            "RESTIC_REPOSITORY": f"rest:http://127.0.0.1:{port}/laptop/",
            "RESTIC_PASSWORD": "correct horse",
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"restic {arguments}: {done.returncode} {done.stdout}{done.stderr}")
    return done.stdout


def play(server_program: Program, restic_program: str, disk: Disk, seed: int) -> dict[str, object]:
    """One round. Returns what restic found."""
    generator = random.Random(seed)
    for number in range(12):
        size = generator.randrange(1, 1 << 20)
        (TREE / str(number)).write_bytes(generator.randbytes(size))
    disk.format()
    root = MOUNT / "store"
    root.mkdir()
    os.sync()
    server = Running(server_program, root)
    restic(restic_program, server.port, "init")
    restic(restic_program, server.port, "backup", str(TREE))
    disk.cut_power()
    server.kill()
    disk.power_up()
    try:
        with running(server_program, root) as server:
            snapshots = json.loads(restic(restic_program, server.port, "snapshots", "--json"))
            restic(restic_program, server.port, "check", "--read-data")
            return {"seed": seed, "snapshots": len(snapshots), "wrong": ""}
    except RuntimeError as error:
        return {"seed": seed, "snapshots": 0, "wrong": str(error)}
    finally:
        disk.remove()


def main() -> None:
    device, filesystem, seed, rounds, restic_program, _, *command = sys.argv[1:]
    MOUNT.mkdir(parents=True)
    TREE.mkdir()
    disk = Disk(Path(device), MOUNT, filesystem)
    for number in range(int(rounds)):
        saw = play(Program("server", tuple(command)), restic_program, disk, int(seed) + number)
        print(json.dumps(saw), flush=True)
    disk.close()


if __name__ == "__main__":
    main()
