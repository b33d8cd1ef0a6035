"""restic through the server, with the repository in Drime."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.end_to_end import gateway_on_place, tree
from tests.end_to_end.gateway_on_place import sound
from tests.servers import peers
from tests.servers.double import Fault, Faults
from tests.servers.drime_double import DrimeDouble
from tests.servers.gateway import Gateway
from tests.servers.process import ServerProcess
from tests.servers.restic import Restic

TROUBLE = (Fault.TOO_MANY, Fault.UNAVAILABLE, Fault.RESET)


def served(drime: DrimeDouble, folder: Path) -> AbstractContextManager[str]:
    """Run the server on a place in Drime."""
    place = {
        "url": "drime:backups/restic",
        "api_url": drime.url,
        "api_key": {"env": "THE_KEY"},
    }
    return gateway_on_place.served(place, folder, {"THE_KEY": drime.key})


@pytest.fixture
def drime() -> Iterator[DrimeDouble]:
    with DrimeDouble() as drime:
        yield drime


def restic(repository: str, home: Path) -> Restic:
    return Restic(peers.get(peers.RESTIC_NEW), repository, home)


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_repositorys_life_in_drime(drime: DrimeDouble, small_tree: Path, tmp_path: Path) -> None:
    with served(drime, tmp_path) as repository:
        client = restic(repository, tmp_path / "home")
        client.init_there()
        drime.forget_calls()
        client.run("backup", ".", directory=small_tree)
        stored = [n for n in drime.account.tree() if "/data/" in n and len(n.split("/")[-1]) == 64]
        uploads = drime.counts()["upload"] + drime.counts()["register"]
        # What is not an upload's own is one look for each, and a few for what restic reads.
        assert drime.counts()["list"] <= uploads + 20
        assert drime.counts()["folder"] == 0
        wanted = tree.describe(small_tree)
        sound(client, wanted, tmp_path / "restored")
        drime.forget_calls()
        client.run("check", "--read-data")
        fetched = {call.path for call in drime.storage.calls if call.method == "GET"}
        assert len(fetched) >= len(stored), "every pack is read, by a link that may be known"
        # 258 folders are listed, many by one request, and no blob that they showed is looked for
        # again.
        assert drime.counts()["list"] <= 80
        (small_tree / "more").write_bytes(bytes(range(256)) * 5000)
        client.run("backup", ".", directory=small_tree)
        client.run("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
        sound(client, tree.describe(small_tree), tmp_path / "restored")
    names = drime.account.tree()
    assert all(len(entries) == 1 for entries in names.values()), "nothing is there twice"
    assert not [name for name in names if "staging/" in name]


@pytest.mark.peers(peers.RESTIC_NEW)
def test_drime_goes_away_and_answers_badly_in_the_middle(
    drime: DrimeDouble, small_tree: Path, tmp_path: Path
) -> None:
    with served(drime, tmp_path) as repository:
        client = restic(repository, tmp_path / "home")
        client.init_there()
        drime.api.faults = Faults(0.2, kinds=(*TROUBLE, Fault.LOST), seed=3, retry_after=1)
        drime.storage.faults = Faults(0.2, kinds=TROUBLE, seed=4)
        stop = threading.Event()

        def interrupt() -> None:
            while not stop.wait(1):
                drime.restart()

        saboteur = threading.Thread(target=interrupt)
        saboteur.start()
        try:
            client.run("backup", ".", directory=small_tree)
        finally:
            stop.set()
            saboteur.join(60)
        drime.api.faults = drime.storage.faults = Faults()
        sound(client, tree.describe(small_tree), tmp_path / "restored")
    twice = [name for name, entries in drime.account.tree().items() if len(entries) > 1]
    assert twice == []


@pytest.mark.peers(peers.RESTIC_NEW)
def test_a_key_that_is_revoked_in_mid_backup(
    drime: DrimeDouble, small_tree: Path, tmp_path: Path
) -> None:
    with served(drime, tmp_path) as repository:
        client = restic(repository, tmp_path / "home")
        client.init_there()
        client.run("backup", ".", directory=small_tree)
        (small_tree / "more").write_bytes(b"".join(n.to_bytes(4, "big") for n in range(3_000_000)))

        def revoke() -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                if drime.counts()["create"] + drime.counts()["upload"] > 2:
                    break
                time.sleep(0.01)
            drime.keys.clear()

        drime.forget_calls()
        revoking = threading.Thread(target=revoke)
        revoking.start()
        start = time.monotonic()
        done = client.attempt("backup", "--retry-lock", "0s", ".", directory=small_tree)
        revoking.join()
        assert done.returncode != 0
        assert "403" in done.stderr, f"restic is told why: {done.stderr[-2000:]}"
        assert time.monotonic() - start < 200
        drime.keys.add(drime.key)
        client.run("unlock")
        client.run("check", "--read-data")
        assert len(json.loads(client.run("snapshots", "--json").stdout)) == 1


@pytest.mark.parametrize("how", ["named", "environment"])
def test_pyrestservers_ways_to_serve_drime(drime: DrimeDouble, tmp_path: Path, how: str) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    command = [*Gateway.program(), "--no-auth", "--listen", "127.0.0.1:0"]
    if how == "named":
        add = [Gateway.program()[0], "config", "add", "mydrime", "--type", "drime"]
        add += ["--api-key", drime.key, "--workspace-id", "7", "--api-url", drime.url]
        done = subprocess.run(
            add, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        command += ["--backend", "drime", "--backend-config", "mydrime"]
    else:
        environment |= {"DRIME_API_KEY": drime.key, "DRIME_API_URL": drime.url}
        command += ["--backend", "drime", "--workspace-id", "7"]
    with ServerProcess(
        command, ready=r"start server on (\S+)", environment=environment, directory=tmp_path
    ) as server:
        url = f"http://{server.match[1]}/laptop"
        with httpx.Client() as client:
            assert client.post(f"{url}/?create=true").status_code == 200
            assert client.post(f"{url}/config", content=b"config").status_code == 200
            assert client.get(f"{url}/config").content == b"config"
            traversal = client.get(f"http://{server.match[1]}/laptop%2F..%2Flaptop/config")
            assert traversal.status_code in (400, 404)
            assert client.delete(f"http://{server.match[1]}/").status_code >= 400
            assert client.get(f"{url}/config").status_code == 200
        assert drime.key not in server.output
    assert drime.account.tree(7)["laptop/config"] == [6]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backend", "drime"], "needs an API key"),
        (["--backend", "tape"], "there is local and drime"),
        (["--backend-config", "nope"], "there is no [places.nope]"),
        (["--backend-config", "x", "--path", "/y"], "nothing beside it"),
        (["--backend", "drime", "--path", "/y"], "--path belongs to --backend local"),
        (["--workspace-id", "7"], "--workspace-id belongs to"),
    ],
)
def test_mistakes_in_the_flags(flags: list[str], message: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DRIME_")}
    environment |= {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        [*Gateway.program(), "--no-auth", "--listen", "127.0.0.1:0", *flags],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
