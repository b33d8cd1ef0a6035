"""Rounds of power loss, run inside User-Mode Linux by test_power_loss.

Each round: a fresh file system, a server on it, clients that upload, remove and upload again, the
cut, the server's death, the file system mounted from what the disk holds, and the check that every
promise is kept and that nothing partial can be seen. Prints one JSON object a round. With
`until-broken` it stops after the first round that found something.

    python -m tests.faults.power_loss_guest DEVICE FILESYSTEM SEED ROUNDS all|until-broken \\
        -- COMMAND OF THE SERVER
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

from tests.faults.device import Disk
from tests.faults.promises import Promises
from tests.faults.protocol import KINDS, Client, blob_name
from tests.faults.server_process import Program, Running, running
from tests.faults.visible import faults, on_disk
from tests.faults.workload import Workload

MOUNT = Path("/mnt/victim")

PATIENCE = 20.0
"""Seconds after which a round is cut, however few acknowledgements there were."""


def play(program: Program, disk: Disk, seed: int, *, sharp: bool) -> dict[str, object]:
    """One round, cut in the moment of an answer (`sharp`) or at any. Returns what it saw."""
    generator = random.Random(seed)
    disk.format()
    root = MOUNT / "store"
    root.mkdir()
    os.sync()
    busy = generator.random() < 0.7
    promises = Promises(cut=disk.cut_power)
    if sharp:
        promises.cut_after = generator.randrange(20, 200 if busy else 80)
    server = Running(program, root)
    workload = Workload(server.port, promises, seed, busy=busy)
    workload.start()
    promises.is_cut.wait(PATIENCE if sharp else generator.uniform(0.5, 3))
    promises.cut_now()
    time.sleep(generator.uniform(0, 0.2))  # the server goes on for a while, into the void
    server.kill()
    workload.join()
    disk.power_up()
    broken = promises.broken(root)
    wrong = faults(root, configs=workload.configs)
    wrong += served_otherwise(program, root)
    disk.remove()
    return {
        "seed": seed,
        "busy": busy,
        "sharp": sharp,
        "kept": promises.kept,
        "broken": broken,
        "wrong": wrong,
        "unexpected": promises.unexpected,
    }


def served_otherwise(program: Program, root: Path) -> list[str]:
    """Start the server again: it must list exactly what is there, and take uploads."""
    found = []
    with running(program, root) as server, Client(server.port) as client:
        for kind in KINDS:
            folder = root / "main" / kind
            pattern = "??/*" if kind == "data" else "*"
            there = {file.name: file.stat().st_size for file in folder.glob(pattern)}
            if client.names("main", kind) != there:
                found.append(f"{kind}: the list differs from the folder")
        body = b"after the power came back"
        if (status := client.upload("main", "data", body)) != 200:
            found.append(f"upload after the power came back: {status} {client.said}")
        elif on_disk(root, f"main/data/{blob_name(body)}").read_bytes() != body:
            found.append("upload after the power came back: not there")
    return found


def main() -> None:
    device, filesystem, seed, rounds, mode, _, *command = sys.argv[1:]
    MOUNT.mkdir(parents=True)
    disk = Disk(Path(device), MOUNT, filesystem)
    program = Program("server", tuple(command))
    for number in range(int(rounds)):
        # A missing sync is seen soonest by a cut that follows an answer at once.
        sharp = mode == "until-broken" or number % 2 == 0
        saw = play(program, disk, int(seed) + number, sharp=sharp)
        print(json.dumps(saw), flush=True)
        if mode == "until-broken" and (saw["broken"] or saw["wrong"]):
            break
    disk.close()


if __name__ == "__main__":
    main()
