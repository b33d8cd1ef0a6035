"""SIGKILL of the node, of its restic and of the Panel at any moment: everything comes to an end.

Afterwards every backup and restore is reported, as successful or as failed; the repository passes
`restic check`; no server's folder is half-restored.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SOAK
from tests.servers import peers
from tests.servers.panel import Backup, NodeRefused, NodeUnreachable, Panel
from tests.wingsadapter.node_site import PASSWORD, NodeSite

pytestmark = [pytest.mark.peers(peers.RESTIC_NEW)]

ROUNDS = 10 if SOAK else 3
SEEDS = range(10 if SOAK else 1)
"""Each with so many rounds."""
SEED = int(os.environ.get("BACKUPGW_SEED", "20261127"))
LATEST = 2.5
"""Seconds after the request within which somebody is killed."""
PATIENCE = 180.0


class Victims:
    """Kills, and brings back."""

    def __init__(self, site: NodeSite, panel: Panel) -> None:
        self.site = site
        self.panel = panel

    def node(self) -> None:
        """The node alone, and no process that it has started."""
        os.kill(self.site.process.pid, signal.SIGKILL)
        self.site.process.process.wait()
        self.site.process.kill()
        self.site.start()

    def node_and_all(self) -> None:
        """The node with all that it has started."""
        self.site.process.kill()
        self.site.start()

    def restic(self) -> None:
        """One restic; none may be running just then."""
        for pid in self._restics()[:1]:
            os.kill(pid, signal.SIGKILL)

    def restics(self) -> None:
        """Every restic."""
        for pid in self._restics():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _restics(self) -> list[int]:
        return [pid for pid in descendants(self.site.process.pid) if "restic" in command(pid)]

    def the_panel(self) -> None:
        """The Panel, which is away for a moment."""
        self.panel.kill()
        time.sleep(0.5)
        self.panel.start()


def descendants(pid: int) -> list[int]:
    """Processes that descend from one, the youngest generation last."""
    parents: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def command(pid: int) -> str:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeSite]:
    with Panel() as panel:
        folder = tmp_path_factory.mktemp("node")
        repository = str(folder / "repository")
        site = NodeSite(folder, panel=panel, repository=repository, more="running = 3")
        site.make_repository()
        with site:
            yield site


class Game:
    """A server with a backup of an older state, and its state now."""

    def __init__(self, site: NodeSite, adapter: str) -> None:
        assert site.panel is not None
        self.site = site
        self.adapter = adapter
        self.server = site.add_server(files=40, size=400_000)
        self.restores = 0
        self.old = site.tree(self.server)
        self.row = site.panel.create_backup(self.server, adapter=adapter)
        assert site.panel.wait_for_backup(self.row, PATIENCE)
        self.change()

    def change(self) -> None:
        root = self.site.root(self.server)
        for number in range(0, 40, 2):
            (root / "world/region" / f"r.{number}.mca").write_bytes(os.urandom(300_000))
        (root / "run.sh").unlink(missing_ok=True)
        (root / "since").write_bytes(os.urandom(1000))
        self.now = self.site.tree(self.server)


@pytest.mark.timeout(1200 if SOAK else 600)
@pytest.mark.parametrize("seed", SEEDS)
def test_everything_comes_to_an_end(site: NodeSite, seed: int) -> None:
    panel = site.panel
    assert panel is not None
    draws = random.Random(SEED + seed)
    victims = Victims(site, panel)
    kinds = [victims.node, victims.restic, victims.the_panel, victims.node_and_all, victims.restics]
    games = [Game(site, adapter) for adapter in ("restic", "wings", "restic")]
    asked: list[Backup] = []
    for number in range(ROUNDS):
        kill = kinds[number % len(kinds)]
        game = draws.choice(games)
        restoring = draws.random() < 0.5
        backups = [
            panel_does(panel.create_backup, other.server, adapter=other.adapter)
            for other in games
            if other is not game
        ]
        if restoring:
            restored = panel_does(restore, panel, game)
        else:
            backups.append(panel_does(panel.create_backup, game.server, adapter=game.adapter))
        time.sleep(draws.random() * LATEST)
        kill()
        for row in filter(None, backups):
            panel.wait_for_backup(row, PATIENCE)
            asked.append(row)
        if restoring and restored:
            game.restores += 1
            succeeded = panel.wait_for_restore(game.row, game.restores, PATIENCE)
            found = site.tree(game.server)
            wanted = game.old if succeeded else game.now
            assert found == wanted, (number, kill.__name__, succeeded, differing(found, wanted))
            game.change()
        for other in games:
            left = [path.name for path in site.root(other.server).glob(".backupgw*")]
            assert left == []
    assert panel.pending == []
    for row in asked:
        if row.adapter != "restic":
            continue  # an archive of its own, which the status says nothing about
        path = f"/api/servers/{row.server}/backup/{row.uuid}/status"
        assert site.request("GET", path).json()["exists"] or not row.successful
    # Each that was reported as successful is one that comes back.
    for row in [row for row in asked if row.successful][-4:]:
        panel.restore_backup(row, truncate=True)
        assert panel.wait_for_restore(row, 1, PATIENCE), site.process.output[-3000:]
    check(site)


FAILED: Any = None


def restore(panel: Panel, game: Game) -> bool:
    panel.restore_backup(game.row, truncate=True)
    return True


def panel_does(what: Any, *arguments: Any, **named: Any) -> Any:
    """What somebody does in the Panel; FAILED where the node is away or refuses."""
    try:
        return what(*arguments, **named)
    except (NodeUnreachable, NodeRefused):
        return FAILED


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    names = found.keys() | wanted.keys()
    return sorted(name for name in names if found.get(name) != wanted.get(name))[:10]


def check(site: NodeSite) -> None:
    """The repository is sound, every byte of it."""
    program = peers.get(peers.RESTIC_NEW).path
    done = subprocess.run(
        [program, "-r", site.repository_folder, "check", "--read-data", "--no-cache", "--no-lock"],
        env={"RESTIC_PASSWORD": PASSWORD, "PATH": os.environ["PATH"], "HOME": str(site.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no errors were found" in done.stdout
