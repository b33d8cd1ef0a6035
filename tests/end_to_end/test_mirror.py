"""A disk dies in the middle of a backup to a mirror: nobody notices, and nothing is missing."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.mirror import MirrorLayer
from backupgw.kvstore.layers.mirror_repair import Compare
from tests.servers import peers
from tests.servers.gateway import Gateway
from tests.servers.restic import Restic

ROOT = Path(__file__).parents[2]
SIZE = 24 << 20

SETTINGS = """
[state]
folder = "{folder}/state"

[places.second]
url = "file://{folder}/place2"

[places.main]
url = "file://{folder}/place1"
layers = [{{ layer = "mirror", places = ["second"], journal = "{folder}/journal" }}]

[rest]
place = "main"
no_auth = true
listen = ["127.0.0.1:0"]
"""


class MirroredGateway(Gateway):
    """The gateway with a settings file, one of whose places dies; see `mirrored_gateway`."""

    @classmethod
    def program(cls) -> list[str]:
        return [sys.executable, "-m", "tests.end_to_end.mirrored_gateway", "rest", "serve"]

    def _arguments(self) -> list[str]:
        settings = self.folder / "backupgw.toml"
        settings.write_text(SETTINGS.format(folder=self.folder))
        return ["--config", str(settings)]


def _files(folder: Path) -> Path:
    """Make files that no compression and no deduplication makes smaller."""
    folder.mkdir()
    dice = random.Random(1)
    for number in range(20):
        (folder / f"file{number}").write_bytes(dice.randbytes(SIZE // 20))
    return folder


def _items(place: Path) -> dict[str, bytes]:
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and ".backupgw" not in path.relative_to(place).as_posix()
    }


@pytest.mark.peers(peers.RESTIC_NEW)
@pytest.mark.parametrize("dying", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_place_dies_in_the_middle_of_a_backup(tmp_path: Path, dying: int) -> None:
    folder = tmp_path / "mirror"
    folder.mkdir()
    files = _files(tmp_path / "files")
    places = [folder / "place1", folder / "place2"]
    victim, survivor = places[dying - 1], places[2 - dying]
    dead = Path(f"{victim}.dead")
    server = MirroredGateway(
        folder,
        environment={
            "BACKUPGW_TEST_DYING": str(victim),
            "BACKUPGW_TEST_AFTER": str(SIZE // 2),
            "PYTHONPATH": str(ROOT),
        },
    )
    restic_peer = peers.get(peers.RESTIC_NEW)
    with server:
        restic = Restic(restic_peer, server.repository("machine"), tmp_path / "home")
        restic.init_there()
        assert not dead.exists()
        restic.run("backup", "--pack-size", "4", ".", directory=files)
        assert dead.exists(), "the place was to die while the backup was running"
        assert len(_items(victim)) < len(_items(survivor))

        # Everything works on one leg, and what is removed now must not come back.
        (first,) = restic.snapshots()
        restic.check()
        restic.run("backup", "--pack-size", "4", ".", directory=files)
        restic.run("forget", first, "--prune")
        (second,) = restic.snapshots()

        dead.unlink()
        restic.run("backup", ".", directory=files)
    first_place, second_place = (PosixFS(str(place)) for place in places)
    with MirrorLayer(first_place, [second_place], str(folder / "journal")) as mirror:
        mirror.repair(compare=Compare.CONTENT)
        report = mirror.repair(compare=Compare.CONTENT)
        assert report.whole
        assert (report.copied.count, report.replaced.count) == (0, 0)
    assert _items(places[0]) == _items(places[1])
    for place in places:
        alone = Restic(restic_peer, str(place / "machine"), tmp_path / "home")
        alone.check()
        snapshots = alone.snapshots()
        assert len(snapshots) == 2
        assert second in snapshots
