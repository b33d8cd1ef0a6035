"""The adapters `wings` and `s3`, downloads and the Wings behind, through a running node."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator

import httpx
import pytest
from tests.servers import peers
from tests.servers.panel import TOKEN_ID, NodeRefused, Panel
from tests.servers.s3 import Moto
from tests.servers.wings_double import WingsDouble
from tests.wingsadapter.node_site import NodeSite, wipe
from websockets.sync.client import connect

pytestmark = [pytest.mark.peers(peers.RESTIC_NEW)]


@pytest.fixture(scope="module")
def wings() -> Iterator[WingsDouble]:
    with WingsDouble(events=True) as wings:
        yield wings


@pytest.fixture(scope="module")
def site(wings: WingsDouble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeSite]:
    with Moto() as s3:
        s3.client().create_bucket(Bucket="panel")
        with Panel(s3=s3) as panel:
            site = NodeSite(
                tmp_path_factory.mktemp("node"),
                panel=panel,
                more=f'upstream = "{wings.url}"\ndownload_hosts = ["{s3.endpoint}"]',
            )
            site.make_repository()
            with site:
                yield site


def panel_of(site: NodeSite) -> Panel:
    assert site.panel is not None
    return site.panel


@pytest.mark.parametrize("adapter", ["wings", "s3"])
def test_a_backup_is_made_restored_and_removed(site: NodeSite, adapter: str) -> None:
    panel = panel_of(site)
    server = site.add_server(files=4, size=2 << 20)
    (site.root(server) / "debug.log").write_text("x")
    before = site.tree(server)
    with site.listening(server) as listener:
        row = panel.create_backup(server, adapter=adapter, ignore="*.log", early=1)
        assert panel.wait_for_backup(row)
        (told,) = listener.wait_for("backup completed")
    assert told["is_successful"] is True
    assert (f"sha1:{told['checksum']}", told["file_size"]) == (row.checksum, row.size)
    del before["debug.log"]
    wipe(site.root(server))
    (site.root(server) / "new").write_text("x")
    panel.restore_backup(row, truncate=True)
    assert panel.wait_for_restore(row)
    assert site.tree(server) == before
    other = site.add_server()
    panel.restore_backup(row, server=other, truncate=True)
    assert panel.wait_for_restore(row, 2)
    assert site.tree(other) == before
    panel.delete_backup(row)
    assert list((site.folder / "archives").rglob("*.tar.gz*")) == []


def test_single_files_come_back_and_missing_ones_are_told(site: NodeSite) -> None:
    panel = panel_of(site)
    server = site.add_server()
    row = panel.create_backup(server, adapter="wings")
    assert panel.wait_for_backup(row)
    before = site.tree(server)
    (site.root(server) / "server.properties").write_text("broken")
    (site.root(server) / "run.sh").write_text("mine")
    panel.restore_backup(row, paths=["server.properties"])
    assert panel.wait_for_restore(row)
    after = site.tree(server)
    assert after["server.properties"] == before["server.properties"]
    assert after["run.sh"] != before["run.sh"]
    panel.restore_backup(row, paths=["nothing/of/the/kind"])
    assert not panel.wait_for_restore(row, 2)
    assert site.tree(server) == after


def test_a_damaged_archive_leaves_the_server_as_it_was(site: NodeSite) -> None:
    panel = panel_of(site)
    server = site.add_server(files=3, size=200_000)
    row = panel.create_backup(server, adapter="wings")
    assert panel.wait_for_backup(row)
    (archive,) = (site.folder / "archives").glob(f"{row.uuid}.tar.gz")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    before = site.tree(server)
    panel.restore_backup(row, truncate=True)
    assert not panel.wait_for_restore(row)
    assert site.tree(server) == before


def test_a_restore_address_that_leads_inside_is_not_asked(
    site: NodeSite, wings: WingsDouble
) -> None:
    panel = panel_of(site)
    server = site.add_server()
    row = panel.create_backup(server, adapter="s3")
    assert panel.wait_for_backup(row)
    before = site.tree(server)
    wings.calls.clear()
    for count, url in enumerate((f"{wings.url}/api/big?mib=1", "file:///etc/passwd", "x"), 1):
        panel.restore_backup(row, truncate=True, download_url=url)
        assert not panel.wait_for_restore(row, count)
    assert site.tree(server) == before
    assert wings.calls.count(lambda call: call.path == "/api/big") == 0


def test_a_download_is_good_once(site: NodeSite) -> None:
    panel = panel_of(site)
    server = site.add_server()
    row = panel.create_backup(server, adapter="wings")
    assert panel.wait_for_backup(row)
    url = panel.download_url(row)
    answer = httpx.get(url)
    assert answer.status_code == 200
    assert len(answer.content) == row.size
    (site.folder / "fetched").write_bytes(answer.content)
    with tarfile.open(site.folder / "fetched") as tar:
        assert "server.properties" in tar.getnames()
    again = httpx.get(url)
    assert again.status_code == 403
    assert set(again.json()) == {"error", "request_id"}
    assert httpx.get(panel.download_url(row, server_uuid=site.add_server())).status_code == 404
    site.stop()
    site.start()
    assert httpx.get(panel_of(site).download_url(row)).status_code == 200
    old = url.partition("?")[2]
    assert httpx.get(f"{site.url}/download/backup?{old}").status_code == 403  # nor after a restart


def test_all_backups_of_a_server_are_removed(site: NodeSite) -> None:
    panel = panel_of(site)
    server, other = site.add_server(), site.add_server()
    rows = [panel.create_backup(each, adapter="wings") for each in (server, server, other)]
    assert all(map(panel.wait_for_backup, rows))
    assert site.request("DELETE", f"/api/servers/{server}/deleteAllBackups").status_code == 204
    left = {path.name for path in (site.folder / "archives").glob("*.tar.gz")}
    assert f"{rows[2].uuid}.tar.gz" in left
    assert not left & {f"{row.uuid}.tar.gz" for row in rows[:2]}


# -- the Wings behind


def test_everything_else_is_wings(site: NodeSite, wings: WingsDouble) -> None:
    found = site.request("POST", "/api/servers/x/power?y=1", content=b"{}").json()
    assert (found["target"], found["query"], found["size"]) == ("/api/servers/x/power", "y=1", 2)
    assert dict(found["headers"])["authorization"].startswith("Bearer ")
    console = site.url.replace("http", "ws") + "/api/servers/x/ws"
    with connect(console, open_timeout=60) as socket:
        socket.send("hello")
        assert socket.recv(60) == "hello"


def test_its_events_are_told_among_ours(site: NodeSite, wings: WingsDouble) -> None:
    server = site.add_server()
    with site.listening(server) as listener:
        wings.wait_for_listener(server)
        wings.tell("status", {"server_id": server, "status": "running"})
        assert listener.wait_for("status") == [{"server_id": server, "status": "running"}]
        row = panel_of(site).create_backup(server, adapter="wings")
        assert panel_of(site).wait_for_backup(row)
        listener.wait_for("backup completed")


def test_a_wings_that_is_away_is_told_in_its_own_manner(site: NodeSite, wings: WingsDouble) -> None:
    panel = panel_of(site)
    server = site.add_server()
    wings.kill()
    try:
        answer = site.request("GET", "/api/system")
        assert (answer.status_code, set(answer.json())) == (502, {"error", "request_id"})
        # The Panel believes nobody else: "could not connect" would be the node's end for it.
        assert answer.headers["user-agent"].endswith(f"(id:{TOKEN_ID})")
        row = panel.create_backup(server, adapter="wings")
        assert panel.wait_for_backup(row)
    finally:
        wings.start()
    deadline = time.monotonic() + 60
    while site.request("GET", "/api/system").status_code != 200:
        assert time.monotonic() < deadline


def test_an_unknown_adapter_is_refused(site: NodeSite) -> None:
    server = site.add_server()
    with pytest.raises(NodeRefused) as refused:
        panel_of(site).create_backup(server, adapter="borg")
    assert refused.value.status == 400
