"""restic on every kind of place while what lies behind the gateway breaks: it finishes or tells the
truth, and nothing is damaged afterwards.

Which place has which fault shown by which test: docs/testing.md. These are the faults that its own
tests do not have, and those that take a minute.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end import cloud_place, tree
from tests.end_to_end.breakable_places import SITES, Site, sftp_behind_a_line
from tests.end_to_end.gateway_on_place import served, sound
from tests.servers import peers
from tests.servers.borg import BorgstoreServer
from tests.servers.ceph import PROGRAMS, Ceph
from tests.servers.double import Application, Double, Message, Receive, Scope, Send
from tests.servers.faulty_proxy import breaking
from tests.servers.http_proxy import faulty, forwarding
from tests.servers.restic import Restic

pytestmark = [
    pytest.mark.soak,
    pytest.mark.peers(peers.RESTIC_NEW, peers.RCLONE),
    pytest.mark.root("sshd"),
]

STALL = 60.0
"""Seconds, as a firewall that forgot a connection or a service that fails over takes."""


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "place"
    folder.mkdir()
    with SITES[request.param](folder) as found:
        yield found


@pytest.fixture
def client(site: Site, tmp_path: Path) -> Iterator[Restic]:
    with served(site.options, tmp_path, site.secrets) as repository:
        yield Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home")


def more(folder: Path, megabytes: int) -> None:
    """A file that does not compress."""
    blocks = (n.to_bytes(8, "big") for n in range(megabytes))
    (folder / "more").write_bytes(
        b"".join(hashlib.shake_128(each).digest(1_000_000) for each in blocks)
    )


@pytest.mark.parametrize("site", SITES, indirect=True)
def test_a_stall_of_a_minute(site: Site, client: Restic, small_tree: Path, tmp_path: Path) -> None:
    client.run("init")
    client.run("backup", ".", directory=small_tree)
    more(small_tree, 24)
    started = time.monotonic()
    site.stall(STALL)
    client.run("backup", ".", directory=small_tree)
    assert site.stalled()
    assert time.monotonic() - started > STALL * 0.9, "somebody waited"
    if site.double is not None:
        site.stall(0)
    client.run("unlock")
    sound(client, tree.describe(small_tree), tmp_path / "restored")


@pytest.mark.parametrize("site", ["s3", "rclone", "borgstore"], indirect=True)
def test_a_fifth_of_the_answers_fails_and_the_server_is_killed(
    site: Site, client: Restic, small_tree: Path, tmp_path: Path
) -> None:
    assert site.double is not None
    cloud_place.life_on_a_service_that_fails(
        site.double, client, small_tree, tmp_path / "restored", rate=0.2
    )


def test_half_of_the_connections_to_an_sftp_server_break(small_tree: Path, tmp_path: Path) -> None:
    """Its protocol has no answer that says to try again: what breaks is the connection."""
    more(small_tree, 24)
    folder = tmp_path / "place"
    folder.mkdir()
    draw, broken = breaking(0.5, 4_000_000, seed=3), 0

    def counted() -> int | None:
        nonlocal broken
        end = draw()
        broken += end is not None
        return end

    with (
        sftp_behind_a_line(folder, counted) as (options, line),
        served(options, tmp_path, {}) as repository,
    ):
        client = Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home")
        client.run("init")
        for _ in range(4):  # each takes connections of its own
            line.cut()
            client.run("backup", "--force", "--pack-size", "4", ".", directory=small_tree)
        assert broken >= 2, f"{line.connections} connections, of which {broken} break"
        line.break_after = lambda: None
        sound(client, tree.describe(small_tree), tmp_path / "restored")


@pytest.mark.root(*PROGRAMS)
def test_a_key_of_a_bucket_behind_rclone_is_revoked_in_mid_backup(
    ceph: Ceph, small_tree: Path, tmp_path: Path
) -> None:
    with faulty(ceph.endpoint) as proxy:
        options = {
            "url": "rclone::s3:restic/by-rclone",
            "binary": str(peers.get(peers.RCLONE).path),
            "config": "/dev/null",
            "layers": ["retry"],
            "provider": "Ceph",
            "endpoint": proxy.url,
            "force_path_style": True,
            "access_key_id": ceph.key_id,
            "secret_access_key": {"env": "SECRET"},
        }

        def set_revoked(revoked: bool) -> None:
            if revoked:
                ceph.revoke_key()
            else:
                ceph.restore_key()

        with served(options, tmp_path, {"SECRET": ceph.secret}) as repository:
            cloud_place.withdrawal_in_mid_backup(
                proxy,
                Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home"),
                small_tree,
                set_revoked,
                lambda call: call.method == "PUT" and "/data/" in call.path,
            )


def test_a_borgstore_server_lets_nobody_in_any_more_in_mid_backup(
    small_tree: Path, tmp_path: Path
) -> None:
    withdrawn = False

    def set_withdrawn(now: bool) -> None:
        nonlocal withdrawn
        withdrawn = now

    with BorgstoreServer(tmp_path / "store") as server:
        guarded = _guarded(forwarding(server.url.rstrip("/")), lambda: withdrawn)
        with (
            Double(guarded) as double,
            served({"url": f"{double.url}/"}, tmp_path, {}) as repository,
        ):
            cloud_place.withdrawal_in_mid_backup(
                double,
                Restic(peers.get(peers.RESTIC_NEW), repository, tmp_path / "home"),
                small_tree,
                set_withdrawn,
                lambda call: call.method == "POST" and "/data/" in call.path,
            )


def _guarded(application: Application, withdrawn: Callable[[], bool]) -> Application:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if not withdrawn():
            await application(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        start: Message = {"type": "http.response.start", "status": 401, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"Unauthorized"})

    return guarded
