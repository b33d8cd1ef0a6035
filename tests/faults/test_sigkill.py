"""A server that is killed at any moment leaves no partial blob, and nobody's backup is lost.

Raw clients upload, remove and repeat, and a real restic backs up all the while. After each kill
the folder is looked at before the server starts again.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults.promises import Promises
from tests.faults.server_process import Program, Running, flawed, gateway
from tests.faults.visible import faults, files
from tests.faults.workload import Workload
from tests.servers import peers
from tests.servers.restic import Restic

KILLS_EACH = 3
"""Kills during one backup. restic's pauses grow with each failed attempt, so that more of them
would test its patience rather than the server."""

FRESH_AFTER = 8
"""Lives after which the raw clients' repositories are removed, so that a look stays quick."""

RESTIC = "restic"
"""The repository of the backups."""

BACKUPS = 67 if os.environ.get("BACKUPGW_SOAK") == "1" else 3


class Victim:
    """A server that is killed again and again on one folder and one port."""

    def __init__(self, program: Program, folder: Path, seed: int) -> None:
        self._program = program
        self._folder = folder
        self._generator = random.Random(seed)
        self._looked_at: set[Path] = set()
        self._lives = 0
        self._configs: dict[str, bytes] = {}
        self._server = Running(program, folder)
        self.port = self._server.port
        self.kept = 0
        """How many acknowledgements the clients received."""

    def life(self) -> list[str]:
        """Serve for a random while, die, start again. Returns what is wrong with the folder."""
        promises = Promises()
        workload = Workload(self.port, promises, self._generator.randrange(1 << 30), busy=True)
        workload.start()
        time.sleep(self._generator.uniform(0.02, 1.2))
        promises.cut_now()
        self._server.kill()
        workload.join()
        self._configs |= workload.configs
        self.kept += promises.kept
        wrong = promises.unexpected + promises.broken(self._folder)
        wrong += faults(self._folder, configs=self._configs, known=self._looked_at)
        self._lives += 1
        if self._lives % FRESH_AFTER == 0:
            self._clear()
        self._looked_at = set(files(self._folder))
        self._server = Running(self._program, self._folder, self.port)
        return wrong

    def _clear(self) -> None:
        """Remove what the raw clients stored, all of it looked at: 261 folders a repository."""
        for repository in self._folder.iterdir():
            if repository.name != RESTIC:
                shutil.rmtree(repository)

    def stop(self) -> None:
        self._server.stop()


@contextmanager
def victim(program: Program, work: Path) -> Iterator[Victim]:
    seed = int(os.environ.get("BACKUPGW_FAULT_SEED", random.randrange(1 << 30)))
    print(f"BACKUPGW_FAULT_SEED={seed}")
    folder = work / "store"
    folder.mkdir()
    server = Victim(program, folder, seed)
    try:
        yield server
    finally:
        server.stop()


def back_up(restic: Restic, tree: Path, number: int) -> str:
    """Back up a tree whose contents are all new, slowly enough to be hit. Returns what it said."""
    generator = random.Random(number)
    for name in "abc":
        (tree / name).write_bytes(generator.randbytes(12 << 20))
    (tree / f"small {number}").write_bytes(generator.randbytes(5000))
    return restic.run("backup", "--limit-upload", "12000", tree).stderr


@pytest.mark.peers(peers.RESTIC_NEW)
@pytest.mark.timeout(3600)
def test_restic_finishes_and_nothing_partial_is_visible(tmp_path: Path) -> None:
    """Each backup lives through a few kills, and then has the server for itself to finish."""
    tree = tmp_path / "tree"
    tree.mkdir()
    hit = 0
    with victim(gateway(), tmp_path) as server, ThreadPoolExecutor(1) as executor:
        address = f"rest:http://127.0.0.1:{server.port}/{RESTIC}/"
        restic = Restic(peers.get(peers.RESTIC_NEW), address, tmp_path / "home")
        restic.run("init")
        for number in range(BACKUPS):
            backup = executor.submit(back_up, restic, tree, number)
            wrong = [server.life() for _ in range(KILLS_EACH)]
            said = backup.result()
            assert wrong == [[]] * KILLS_EACH, f"during backup {number}"
            hit += "retrying" in said
        print(
            f"{BACKUPS * KILLS_EACH} kills, {hit} of {BACKUPS} backups hit, {server.kept} answers"
        )
        assert server.kept > 0
        assert hit > BACKUPS // 2, "hardly a kill hit a backup: the test shows nothing"
        assert len(restic.snapshots()) == BACKUPS
        restic.run("check", "--read-data")


@pytest.mark.parametrize("flaw", ["in-place", "leaves-temporary"])
def test_what_a_kill_leaves_behind_is_seen(tmp_path: Path, flaw: str) -> None:
    """The control: a server that writes in place, or under a visible name, is caught."""
    with victim(flawed(flaw), tmp_path) as server:
        assert any(server.life() for _ in range(30))


def test_a_sound_server_passes(tmp_path: Path) -> None:
    """The control's control."""
    with victim(flawed(), tmp_path) as server:
        assert [server.life() for _ in range(4)] == [[]] * 4
