"""A node killed, stopped, filled up and overrun: nothing stays pending, nothing half-done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from tests.conftest import SOAK
from tests.servers import peers
from tests.servers.child import Child
from tests.servers.panel import Backup, Panel
from tests.servers.s3 import KEY_ID, SECRET, RcloneS3

from backupgw.wingsadapter.staging_swap import AREA

from .node_site import PASSWORD, Listener, NodeSite, wipe

pytestmark = [
    pytest.mark.peers(peers.RESTIC_OLD, peers.RESTIC_NEW),
]


def restics(site: NodeSite) -> list[int]:
    """The restic processes that work for a node."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = path.read_text()
            name = text[text.index("(") + 1 : text.rindex(")")]
            parent = int(text[text.rindex(")") + 2 :].split()[1])
            if name == "restic" and parent == site.process.pid:
                found.append(int(path.parent.name))
    return found


@pytest.fixture(
    scope="module",
    params=[peers.RESTIC_NEW, pytest.param(peers.RESTIC_OLD, marks=pytest.mark.soak)],
)
def slow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeSite]:
    """A node whose backups take some seconds."""
    with Panel() as panel:
        site = NodeSite(
            tmp_path_factory.mktemp("slow"),
            panel=panel,
            restic=request.param,
            sections="upload = 2_000_000",
        )
        site.make_repository()
        with site:
            yield site


def test_a_backup_deleted_while_it_is_made(slow: NodeSite) -> None:
    """The Panel has forgotten it, so nobody would ever remove what comes of it."""
    site, panel = slow, slow.panel
    assert panel is not None
    server = site.add_server(files=3, size=2 << 20)
    before = os.listdir(site.repository_folder / "snapshots")
    with site.listening(server) as listener:
        running = panel.create_backup(server)
        waiting = panel.create_backup(server)
        listener.wait_for("backup progress")
        panel.delete_backup(waiting)
        panel.delete_backup(running)
        told = listener.wait_for("backup completed", 2)
        assert {each["backup_uuid"] for each in told} == {running.uuid, waiting.uuid}
        assert not any(each["is_successful"] for each in told)
        assert restics(site) == []
        # One more is made, and all of them are deleted, this time.
        panel.create_backup(server)
        listener.wait_for("backup progress", 1 + len(_progress(listener)))
        answer = site.request("DELETE", f"/api/servers/{server}/deleteAllBackups")
        assert answer.status_code == 204
        assert not listener.wait_for("backup completed", 3)[-1]["is_successful"]
    kept = panel.create_backup(server)
    assert panel.wait_for_backup(kept)
    assert [each["backup_uuid"] for each in site.snapshots(server)] == [kept.uuid]
    assert len(os.listdir(site.repository_folder / "snapshots")) == len(before) + 1


def _progress(listener: Listener) -> list[str]:
    return [name for name, _ in listener.events if name == "backup progress"]


def test_a_stop_in_good_order(slow: NodeSite) -> None:
    site, panel = slow, slow.panel
    assert panel is not None
    server = site.add_server(files=3, size=2 << 20)
    with site.listening(server) as listener:
        row = panel.create_backup(server)
        listener.wait_for("backup progress")
        working = restics(site)
        assert site.stop() == 0
    assert working
    assert not any(Path(f"/proc/{pid}").exists() for pid in working)
    assert os.listdir(site.repository_folder / "locks") == []
    assert row.completed is None
    site.start()
    assert panel.wait_for_backup(row)
    assert len(site.snapshots(server)) == 1


@pytest.mark.parametrize("where", [pytest.param("folder", marks=pytest.mark.soak), "place"])
def test_two_nodes_make_one_repository(tmp_path: Path, where: str) -> None:
    rounds = 20 if SOAK else 1
    with Panel() as first_panel, Panel() as second_panel:
        shared = tmp_path / "shared"
        nodes = [
            NodeSite(
                tmp_path,
                panel=panel,
                restic=restic,
                repository=str(shared) if where == "folder" else None,
                sections="per_server = true",
                name=name,
                state=name,
            )
            for panel, restic, name in (
                (first_panel, peers.RESTIC_NEW, "first"),
                (second_panel, peers.RESTIC_NEW, "second"),
            )
        ]
        with nodes[0], nodes[1], ThreadPoolExecutor(2) as pool:
            for _ in range(rounds):
                server = nodes[0].add_server()
                second_panel.add_server(server)
                made = [
                    pool.submit(panel.create_backup, server)
                    for panel in (first_panel, second_panel)
                ]
                rows = [each.result() for each in made]
                assert first_panel.wait_for_backup(rows[0])
                assert second_panel.wait_for_backup(rows[1])
                base = shared if where == "folder" else tmp_path / "place" / "wings"
                assert len(os.listdir(base / server / "keys")) == 1
                assert len(os.listdir(base / server / "snapshots")) == 2
                assert not list((base / server).glob("backupgw-init*"))


def test_twenty_servers_at_once(tmp_path: Path) -> None:
    count = 20 if SOAK else 6
    log = tmp_path / "log"
    command = f"""["sh", "-c", "echo $1 >> {log}", "hook", """
    fails = str(uuid.uuid4())
    hooks = f"""
            [[wings.hook]]
            when = "before"
            command = ["sh", "-c", "test $BACKUPGW_SUCCESSFUL || echo no world >&2; exit 3"]
            servers = ["{fails}"]
            [[wings.hook]]
            when = "before"
            command = {command}"begin"]
            [[wings.hook]]
            when = "after"
            command = {command}"end"]
    """
    with Panel() as panel:
        site = NodeSite(tmp_path, panel=panel, more="running = 3", sections=hooks)
        site.make_repository()
        with site:
            servers = [site.add_server(files=2, size=500_000) for _ in range(count)]
            rows = [panel.create_backup(server) for server in servers]
            times = []
            for row in rows:
                began = time.monotonic()
                site.snapshots(row.server, "?include_stats=false")
                times.append(time.monotonic() - began)
            assert all(panel.wait_for_backup(row) for row in rows)
            assert all(len(site.snapshots(server)) == 1 for server in servers)
            # A hook that fails fails the backup.
            site.add_server(server=fails)
            assert not panel.wait_for_backup(panel.create_backup(fails))
            site.process.wait_for_line("ended with status 3: no world")
            assert site.snapshots(fails) == []
    inside = most = 0
    for line in log.read_text().split():
        inside += 1 if line == "begin" else -1
        most = max(most, inside)
    assert (inside, most) == (0, 3)
    assert sorted(times)[len(times) // 2] < 1.0  # the figure is benchmarks/wings.py's


def test_a_server_that_runs_is_not_restored(node: NodeSite, panel: Panel) -> None:
    server = node.add_server()
    row = panel.create_backup(server)
    assert panel.wait_for_backup(row)
    (node.root(server) / "server.properties").write_text("changed")
    before = node.tree(server)
    with Child(["sleep", "300"], cwd=node.root(server)) as running:
        panel.restore_backup(row, truncate=True)
        assert not panel.wait_for_restore(row)
        running.kill()
    assert node.tree(server) == before
    panel.restore_backup(row, truncate=True)
    assert panel.wait_for_restore(row, 2)
    assert node.tree(server) != before


@pytest.mark.soak
@pytest.mark.root
def test_a_full_disk_leaves_the_old_files(tmp_path: Path) -> None:
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", volumes], check=True)
    try:
        with Panel() as panel:
            site = NodeSite(tmp_path, panel=panel)
            site.make_repository()
            with site:
                server = site.add_server()
                root = site.root(server)
                # A page each on the disk, a byte each in the snapshot: nobody can tell beforehand.
                (root / "many").mkdir()
                for number in range(6500):
                    (root / "many" / str(number)).write_bytes(b"x")
                row = panel.create_backup(server)
                assert panel.wait_for_backup(row)
                (root / "server.properties").write_text("since then")
                before = site.tree(server)
                for truncate in (True, False) if SOAK else (True,):
                    panel.restore_backup(row, truncate=truncate)
                    assert not panel.wait_for_restore(row, 1 + (not truncate))
                    assert site.tree(server) == before
                    assert AREA not in os.listdir(root)
                # What can be told beforehand is not even begun.
                large = site.add_server(files=1, size=12 << 20)
                shutil.rmtree(root / "many")
                known = panel.create_backup(large)
                assert panel.wait_for_backup(known)
                (root / "filler").write_bytes(bytes(16 << 20))
                panel.restore_backup(known)
                assert not panel.wait_for_restore(known)
                site.process.wait_for_line("are free; nothing was touched")
    finally:
        subprocess.run(["umount", volumes], check=True)


def test_a_repository_on_s3(tmp_path: Path) -> None:
    with Panel() as panel, RcloneS3(tmp_path / "s3") as s3:
        s3.client().create_bucket(Bucket="games")
        site = NodeSite(
            tmp_path,
            panel=panel,
            repository=f"s3:{s3.endpoint}/games/node",
            sections=f"""
            [wings.restic.environment]
            AWS_ACCESS_KEY_ID = "{KEY_ID}"
            AWS_SECRET_ACCESS_KEY = "{SECRET}"
            AWS_DEFAULT_REGION = "us-east-1"
            """,
        )
        with site:
            server = site.add_server()
            before = site.tree(server)
            row = panel.create_backup(server)
            assert panel.wait_for_backup(row)
            assert any("/snapshots/" in key for key in s3.keys("games"))
            assert not any("backupgw-init" in key for key in s3.keys("games"))
            wipe(site.root(server))
            panel.restore_backup(row, truncate=True)
            assert panel.wait_for_restore(row)
            assert site.tree(server) == before
            panel.delete_backup(row)
            assert site.snapshots(server) == []
            for secret in (SECRET, PASSWORD):
                assert secret not in site.process.output


def test_what_was_lost_in_between_is_reported(tmp_path: Path) -> None:
    """Accepted, and killed before it was in the queue: the database of jobs knows nothing."""
    from backupgw.wingsadapter.records import Kind, Records

    with Panel() as panel:
        site = NodeSite(tmp_path, panel=panel)
        site.make_repository()
        server = site.add_server()
        row = Backup(str(uuid.uuid4()), server, "restic", hidden=False)
        panel.backups[row.uuid] = row
        site.state.mkdir(mode=0o700)
        records = Records(site.state / "wings.sqlite3")
        records.accept(Kind.BACKUP, server, row.uuid, "restic", {"ignore": ""})
        records.close()
        with site:
            assert not panel.wait_for_backup(row)


def test_a_missing_restic_is_a_line(tmp_path: Path) -> None:
    site = NodeSite(tmp_path, panel=None)
    text = site.config.read_text().replace(str(peers.get(peers.RESTIC_NEW).path), "/nowhere/restic")
    site.config.write_text(text)
    done = subprocess.run(
        [Path(sys.executable).parent / "backupgw", "wings", "serve", "--config", site.config],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        timeout=60,
    )
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if "nowhere" in line]
    assert len(said) == 1
    assert "there is no /nowhere/restic; install restic" in said[0]
    assert "Traceback" not in done.stderr
