"""Damage in a repository that a real restic made: all of it is found, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import SOAK
from tests.servers import peers
from tests.servers.gateway import Gateway
from tests.servers.restic import Restic

MIB = 1 << 20
AMOUNTS = [30] + ([pytest.param(10_000, marks=pytest.mark.soak)] if SOAK else [])


def write(folder: Path, mebibytes: int) -> None:
    """Bytes that neither compress nor repeat."""
    folder.mkdir()
    for number in range(mebibytes):
        source = random.Random(number)
        (folder / f"{number:05}").write_bytes(source.randbytes(MIB))


def init(restic: Restic, stored: Path) -> None:
    """Make a repository with a cheap key, which has another name then: it is a hash, too."""
    restic.init(stored)
    (key,) = (stored / "keys").iterdir()
    key.rename(key.with_name(hashlib.sha256(key.read_bytes()).hexdigest()))


def verify(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    state = folder.parent / "state"
    done = subprocess.run(
        [Gateway.program()[0], "rest", "verify", "--json", "--path", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "BACKUPGW_STATE__FOLDER": str(state), "XDG_CONFIG_HOME": "/nonexistent"},
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(bit // 8 % size)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1 << bit % 8]))


@pytest.mark.peers(peers.RESTIC_NEW)
@pytest.mark.parametrize("mebibytes", AMOUNTS)
@pytest.mark.timeout(7200 if SOAK else 300)
def test_damage_is_found_and_a_client_can_mend_it(tmp_path: Path, mebibytes: int) -> None:
    repositories, source = tmp_path / "data", tmp_path / "source"
    stored = repositories / "ann"
    write(source, mebibytes)
    with Gateway(repositories) as server:
        # Small packs, so that there are some to choose from.
        restic = Restic(peers.get(peers.RESTIC_NEW), server.repository("ann"), tmp_path / "home")
        init(restic, stored)
        restic.run("backup", "--pack-size", "4", ".", directory=source)
        (source / "more").write_bytes(os.urandom(10_000))
        restic.run("backup", "--pack-size", "4", ".", directory=source)
        restic.check()
        objects = [
            p for kind in ("data", "index", "keys", "snapshots") for p in files(stored / kind)
        ]
        status, sound = verify(repositories)
        assert (status, sound["problems"], sound["files"]) == (0, [], len(objects))
        assert sound["bytes"] == sum(path.stat().st_size for path in objects)

        packs = sorted(files(stored / "data"))
        choose = random.Random(1)
        first, second, cut, renamed, misplaced = choose.sample(packs, 5)
        flip(first, choose.randrange(first.stat().st_size * 8))
        flip(second, 0)
        snapshot = min(files(stored / "snapshots"))
        flip(snapshot, 77)
        os.truncate(cut, cut.stat().st_size - 1)
        false_name = hashlib.sha256(b"a name that nothing has").hexdigest()
        renamed = renamed.rename(stored / "data" / false_name[:2] / false_name)
        elsewhere = stored / "data" / ("00" if misplaced.name[:2] != "00" else "01")
        misplaced = misplaced.rename(elsewhere / misplaced.name)

        status, report = verify(repositories)
        wanted = dict.fromkeys((first, second, snapshot, cut, renamed), "damaged")
        wanted[misplaced] = "misplaced"
        assert status == 1
        assert {each["name"]: each["problem"] for each in report["problems"]} == {
            path.relative_to(repositories).as_posix(): what for path, what in wanted.items()
        }
        assert not any(path.exists() for path in wanted if path != misplaced)
        # What was taken away is missed by restic, which mends it from what it still has to back up.
        assert "does not exist" in restic.fail("check") or "not found" in restic.fail("check")
        misplaced.rename(stored / "data" / misplaced.name[:2] / misplaced.name)
        restic.run("repair", "index")
        restic.run("backup", "--force", ".", directory=source)
        assert verify(repositories)[0] == 0
        restic.run("restore", "latest", "--target", tmp_path / "restored")
        for path in source.iterdir():
            assert (tmp_path / "restored" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_backup_goes_on_while_it_is_verified(tmp_path: Path) -> None:
    """Neither half an upload nor a pack that prune removes is called damaged."""
    repositories, source = tmp_path / "data", tmp_path / "source"
    write(source, 4)
    reports: list[dict[str, Any]] = []
    done = threading.Event()

    def verify_all_along() -> None:
        while not done.is_set():
            reports.append(verify(repositories)[1])

    with Gateway(repositories) as server:
        restic = Restic(peers.get(peers.RESTIC_NEW), server.repository("ann"), tmp_path / "home")
        init(restic, repositories / "ann")
        watcher = threading.Thread(target=verify_all_along)
        watcher.start()
        try:
            for number in range(2):
                (source / "changing").write_bytes(os.urandom(2 * MIB))
                restic.run("backup", "--pack-size", "4", ".", directory=source)
                if number:
                    restic.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
            restic.check()
        finally:
            done.set()
            watcher.join(60)
    assert reports
    assert all(not report["problems"] for report in reports), reports


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
