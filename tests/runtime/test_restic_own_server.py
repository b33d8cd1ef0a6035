"""A gateway's own restserver on loopback: any place, one credential, alive as long as needed."""

from __future__ import annotations

import http.client
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupgw.runtime.restic import (
    Limits,
    OwnServer,
    OwnServerFailed,
    PlaceTurn,
    Repository,
    Restic,
    ensure_repository,
    find_program,
)
from backupgw.runtime.settings import Settings, load
from tests.servers import peers
from tests.servers.child import Child

PASSWORD = "correct horse battery"
BOTH = (peers.RESTIC_OLD, peers.RESTIC_NEW)

pytestmark = [pytest.mark.peers(*BOTH)]


def settings_of(tmp_path: Path) -> Settings:
    config = tmp_path / "backupgw.toml"
    config.write_text(
        f"""
        [state]
        folder = "{tmp_path}/state"
        [places.games]
        url = "file://{tmp_path}/games"
        layers = ["observe"]
        [places.broken]
        url = "sftp://127.0.0.1:1/nowhere"
        [rest]
        tls = true
        tls_cert = "/nowhere/cert"
        tls_key = "/nowhere/key"
        private_repos = true
        """
    )
    return load(config, environ={}, serving=())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def server(settings: Settings) -> Iterator[OwnServer]:
    with OwnServer(settings, "games") as own:
        yield own


def restic_of(name: str, own: OwnServer, path: str, **more: object) -> Restic:
    return Restic(
        find_program(str(peers.get(name).path)),
        Repository(own.url(path), PASSWORD),
        **more,  # type: ignore[arg-type]
    )


def test_both_versions_use_it_and_the_place_has_the_repository(
    server: OwnServer, settings: Settings, tmp_path: Path
) -> None:
    for name in BOTH:
        restic = restic_of(name, server, f"wings/{name}", cache=tmp_path / "cache")
        turn = PlaceTurn(settings.open_place("games"), f"wings/{name}")
        assert ensure_repository(restic, [turn])
        assert not ensure_repository(restic, [turn])
        assert restic.backup([str(tmp_path / "backupgw.toml")]).complete
        assert len(list((tmp_path / "games/wings" / name / "snapshots").iterdir())) == 1


def test_nobody_else_gets_in(server: OwnServer) -> None:
    found = re.match(r"rest:http://([^:]+):([^@]+)@127\.0\.0\.1:(\d+)/", server.url("x"))
    assert found is not None
    connection = http.client.HTTPConnection("127.0.0.1", int(found[3]), timeout=30)
    try:
        connection.request("GET", "/x/config")
        assert connection.getresponse().status == 401
    finally:
        connection.close()
    for other in (server.process_id,):
        assert found[2].encode() not in Path(f"/proc/{other}/cmdline").read_bytes()
        assert found[2].encode() not in Path(f"/proc/{other}/environ").read_bytes()


def test_a_backup_outlasts_its_death(server: OwnServer, tmp_path: Path) -> None:
    folder = tmp_path / "big"
    folder.mkdir()
    for number in range(6):
        (folder / str(number)).write_bytes(os.urandom(1 << 20))
    restic = restic_of(peers.RESTIC_NEW, server, "r", limits=Limits(upload=2 << 20))
    restic.init()
    killed = threading.Event()
    first = server.process_id

    def kill(_message: object) -> None:
        if not killed.is_set() and first is not None:
            killed.set()
            os.kill(first, signal.SIGKILL)

    assert restic.backup([str(folder)], on_message=kill).complete
    assert killed.is_set()
    assert server.starts == 2
    restic.check(read_data="all")


def test_it_ends_with_its_owner(tmp_path: Path) -> None:
    settings_of(tmp_path)
    script = f"""
        import sys
        from pathlib import Path
        from backupgw.runtime.restic import OwnServer
        from backupgw.runtime.settings import load
        own = OwnServer(load(Path({str(tmp_path / "backupgw.toml")!r}), serving=()), "games")
        own.start()
        print(own.process_id, flush=True)
        sys.stdin.read()
    """
    with Child(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        descriptor = os.pidfd_open(child)
        try:
            owner.kill()
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            assert poll.poll(30_000)
        finally:
            os.close(descriptor)


def test_a_place_that_cannot_be_used_is_told(settings: Settings) -> None:
    own = OwnServer(settings, "broken")
    with pytest.raises(OwnServerFailed, match=r"in front of broken: .*127\.0\.0\.1"):
        own.start()
    assert own.process_id is None
