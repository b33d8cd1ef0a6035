"""restic on a place on an OpenSSH server, declared in the settings, through everything it does."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.end_to_end import tree
from tests.end_to_end.gateway_on_place import served, sound
from tests.servers import peers
from tests.servers.restic import Restic
from tests.servers.sshd import Sshd

pytestmark = [pytest.mark.root("sshd"), pytest.mark.peers(peers.RESTIC_NEW)]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as sshd:
        yield sshd


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """The folder on the server."""
    folder = tmp_path / "box"
    folder.mkdir()
    return folder


def gateway(sshd: Sshd, box: Path, folder: Path, **options: object) -> AbstractContextManager[str]:
    config = sshd.folder / "ssh_config"
    config.write_text(sshd.config("box"))
    place = {"url": f"sftp://box/{box}", "ssh_config": str(config)}
    return served({**place, **options}, folder, {})


def client(repository: str, home: Path) -> Restic:
    return Restic(peers.get(peers.RESTIC_NEW), repository, home)


def random_file(path: Path, megabytes: int) -> None:
    blocks = (n.to_bytes(8, "big") for n in range(megabytes))
    path.write_bytes(b"".join(hashlib.shake_128(each).digest(1 << 20) for each in blocks))


def test_a_repository_from_init_to_prune(
    sshd: Sshd, box: Path, small_tree: Path, tmp_path: Path
) -> None:
    with gateway(sshd, box, tmp_path) as repository:
        restic = client(repository, tmp_path / "home")
        restic.init(box / "mine")
        random_file(small_tree / "first", 20)
        restic.run("backup", ".", directory=small_tree)
        random_file(small_tree / "second", 30)
        (small_tree / "first").unlink()
        restic.run("backup", ".", directory=small_tree)
        restic.run("check", "--read-data")
        restic.run("forget", "--keep-last", "1", "--prune")
        assert len(restic.snapshots()) == 1
        sound(restic, tree.describe(small_tree), tmp_path / "restored")
    assert not [path for path in box.rglob(".backupgw*") if path.is_file()]
    local = client(str(box / "mine"), tmp_path / "home")  # it is restic's own layout
    sound(local, tree.describe(small_tree), tmp_path / "restored locally")


def test_connections_killed_in_the_middle_of_a_backup(
    sshd: Sshd, box: Path, small_tree: Path, tmp_path: Path
) -> None:
    with gateway(sshd, box, tmp_path, layers=["retry"]) as repository:
        restic = client(repository, tmp_path / "home")
        restic.init(box / "mine")
        random_file(small_tree / "big", 60)
        over = threading.Event()
        kills = 0

        def kill() -> None:
            nonlocal kills
            while not over.wait(0.25) and kills < 6:
                kills += bool(sshd.drop())

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            restic.run("backup", ".", directory=small_tree)
        finally:
            over.set()
            killer.join(60)
        assert kills
        sound(restic, tree.describe(small_tree), tmp_path / "restored")


def test_the_key_is_withdrawn_in_the_middle_of_a_backup(
    sshd: Sshd, box: Path, small_tree: Path, tmp_path: Path
) -> None:
    with gateway(sshd, box, tmp_path) as repository:
        restic = client(repository, tmp_path / "home")
        restic.init(box / "mine")
        restic.run("backup", ".", directory=small_tree)
        (sshd.folder / "authorized_keys").write_text("")
        sshd.drop()
        random_file(small_tree / "big", 5)
        refused = restic.attempt("backup", ".", "--retry-lock", "0s", directory=small_tree)
        assert refused.returncode != 0
        sshd.allow()
        restic.run("unlock")
        restic.run("backup", ".", directory=small_tree)
        sound(restic, tree.describe(small_tree), tmp_path / "restored")
