"""Bad input to a whole node: refused as documented, nothing run, nothing shown, nothing lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers import peers
from tests.servers.panel import TOKEN, Panel
from tests.wingsadapter.node_site import PASSWORD, NodeSite
from tests.wingsadapter.test_ignore import HOSTILE

pytestmark = [pytest.mark.peers(peers.RESTIC_NEW)]

SOME = "a09316f2-c1df-44b9-8244-6c6789eb75a1"
SEED = 20261127
SECRETS = (PASSWORD, TOKEN)

INJECTED = [
    f"{SOME},server_uuid:{SOME}", f"{SOME} --repo=/tmp/x", "--help", "-r/tmp/x", "--", "",
    "--password-command=id", "$RESTIC_PASSWORD", "${RESTIC_PASSWORD}", "$(id)", "`id`", ";id",
    "|id", "&id", f"{SOME}\n", f"\n{SOME}", f"{SOME}\r\nX: y", f"{SOME}\0", "\0", "../" + SOME,
    f"/{SOME}", f"{SOME}/", SOME.upper(), SOME.replace("-", ""), f"{{{SOME}}}", f"urn:uuid:{SOME}",
    f" {SOME}", f"{SOME} ", "latest", "*", "%", "é" * 36, "\uff10" * 36, "a" * 100_000,
]  # fmt: skip


class Recorded:
    """A restic that writes down with what it is run, and then is the real one."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "restic-runs"
        self.program = folder / "restic-recorded"
        self.program.write_text(
            "#!/bin/sh\n"
            f'{{ echo "=== run"; for a in "$@"; do printf "%s\\n" "$a"; done; env; }} '
            f'>> "{self.file}"\n'
            f'exec "{peers.get(peers.RESTIC_NEW).path}" "$@"\n'
        )
        self.program.chmod(0o755)

    @property
    def text(self) -> str:
        return self.file.read_text() if self.file.exists() else ""

    @property
    def acts(self) -> int:
        """How often it was to change or show something; the node itself looks now and then."""
        commands = [run.lstrip("\n").partition("\n")[0] for run in self.text.split("=== run")[1:]]
        return sum(command not in ("snapshots", "stats", "cat", "version") for command in commands)


class Hostile(NodeSite):
    """A node whose restic is recorded, asked over connections that are kept."""

    recorded: Recorded
    client: httpx.Client

    def request(
        self, method: str, path: str, *, token: str | None = TOKEN, **more: Any
    ) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {token}")
        return self.client.request(method, f"{self.url}{path}", headers=headers, **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    with Panel() as panel:
        folder = tmp_path_factory.mktemp("node")
        # What records is a script, and starts another program.
        site = Hostile(folder, panel=panel, sections="confine = false")
        site.recorded = Recorded(folder)
        real = str(peers.get(peers.RESTIC_NEW).path)
        site.config.write_text(site.config.read_text().replace(real, str(site.recorded.program)))
        site.make_repository()
        with site, httpx.Client(timeout=60, trust_env=False) as site.client:
            server = site.add_server()
            row = panel.create_backup(server)  # what is looked up once is looked up before
            assert panel.wait_for_backup(row)
            yield site


def refused(site: NodeSite, method: str, path: str, **more: Any) -> None:
    """Ask, and see that the answer is an error as it is documented."""
    answer = site.request(method, path, **more)
    assert 400 <= answer.status_code < 500, (method, path, answer.status_code, answer.text)
    if answer.headers.get("content-type", "").startswith("text/plain"):
        return  # the HTTP host's own: not a request at all
    assert set(answer.json()) == {"error", "request_id"}, answer.text
    assert len(answer.json()["error"]) < 1000


def percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def test_injections_run_nothing(site: Hostile) -> None:
    server = site.add_server()
    site.snapshots(server)
    before, tree = site.recorded.acts, site.tree(server)
    base = f"/api/servers/{server}"
    for text in INJECTED:
        path = percent(text[:2000])
        refused(
            site, "POST", f"/api/servers/{path}/backup", json={"adapter": "restic", "uuid": SOME}
        )
        refused(site, "GET", f"{base}/backup/{path}/status")
        refused(site, "POST", f"{base}/backup/{path}/restore", json={"adapter": "restic"})
        refused(site, "DELETE", f"{base}/backup/{path}")
        refused(site, "GET", f"/api/servers/{path}/backup/snapshots")
        refused(site, "DELETE", f"/api/servers/{path}/deleteAllBackups")
        refused(site, "GET", f"/api/events?servers={path}")
        refused(site, "POST", f"{base}/backup", json={"adapter": "restic", "uuid": text})
        refused(site, "POST", f"{base}/backup", json={"adapter": text, "uuid": str(uuid.uuid4())})
        if text != SOME:
            restore = f"{base}/backup/{uuid.uuid4()}/restore"
            refused(site, "POST", restore, json={"adapter": text})
    assert site.recorded.acts == before
    assert site.tree(server) == tree
    assert site.snapshots(server) == []
    for text in (SOME, "password-command", "urn:uuid", "aaaaaaaaaa"):
        assert text not in site.recorded.text


def test_wrong_tokens_run_nothing(site: Hostile) -> None:
    server = site.add_server()
    site.snapshots(server)
    before = site.recorded.acts
    routes = [
        ("POST", f"/api/servers/{server}/backup"),
        ("POST", f"/api/servers/{server}/backup/{SOME}/restore"),
        ("DELETE", f"/api/servers/{server}/backup/{SOME}"),
        ("DELETE", f"/api/servers/{server}/deleteAllBackups"),
        ("GET", f"/api/servers/{server}/backup/snapshots"),
        ("GET", f"/api/servers/{server}/backup/{SOME}/status"),
        ("GET", f"/api/events?servers={server}"),
        ("GET", "/metrics"),
    ]
    body = {"adapter": "restic", "uuid": SOME}
    for method, path in routes:
        for token in (None, "x", TOKEN[:-1], TOKEN + "x", TOKEN.lower(), TOKEN * 100, "é"):
            headers = {} if token is None else {"authorization": f"Bearer {token}".encode()}
            json_body = body if method == "POST" else None
            answer = site.request(method, path, token=None, headers=headers, json=json_body)
            assert answer.status_code in (401, 403), (method, path, token)
    assert site.recorded.acts == before


def test_changed_bodies_are_understood_or_refused(site: Hostile) -> None:
    """Bodies with random bytes changed: accepted where they still say something, else 4xx."""
    draws = random.Random(SEED)
    server = site.add_server()
    path = f"/api/servers/{server}/backup/{SOME}/restore"
    good = json.dumps(
        {"adapter": "none", "truncate_directory": True, "paths": ["a/b"], "download_url": "x"}
    ).encode()
    tree = site.tree(server)
    for _ in range(200):
        body = bytearray(good)
        for _ in range(draws.randrange(1, 6)):
            place = draws.randrange(len(body) + 1)
            kind = draws.randrange(3)
            if kind == 0:
                body[place:place] = draws.randbytes(draws.randrange(1, 4))
            elif kind == 1:
                del body[place : place + draws.randrange(1, 9)]
            elif place < len(body):
                body[place] = draws.randrange(256)
        refused(site, "POST", path, content=bytes(body))  # there is no adapter called none
    assert site.tree(server) == tree


def test_huge_bodies_are_ended_early(site: Hostile) -> None:
    server = site.add_server()
    before = site.recorded.acts
    for method, path in (
        ("POST", f"/api/servers/{server}/backup"),
        ("POST", f"/api/servers/{server}/backup/{SOME}/restore"),
        ("DELETE", f"/api/servers/{server}/backup/{SOME}"),
    ):
        answer = site.request(method, path, content=b"{" + b" " * (3 << 20) + b"}")
        assert answer.status_code == 413
    assert site.recorded.acts == before


def test_ignore_lines_show_no_secret_and_end_no_backup(site: Hostile) -> None:
    panel = site.panel
    assert panel is not None
    groups = [HOSTILE[n::4] for n in range(4)]
    for lines in groups:
        server = site.add_server()
        for secret in SECRETS:
            (site.root(server) / secret).write_text("x")
        text = "\n".join(line for line in lines if len(line) < 8000)
        with site.listening(server) as listener:
            row = panel.create_backup(server, ignore=text)
            assert panel.wait_for_backup(row), site.process.output
            listener.wait_for("backup completed")
            heard = json.dumps(listener.events)
        assert len(site.snapshots(server)) == 1
        told = json.dumps(row.reports) + heard + site.process.output + site.recorded.text
        for secret in SECRETS:
            assert secret not in told
    assert "hunter2" not in site.recorded.text


def test_the_servers_own_rules_are_as_harmless(site: Hostile) -> None:
    panel = site.panel
    assert panel is not None
    server = site.add_server()
    root = site.root(server)
    (root / ".pelicanignore").write_text("[$RESTIC_PASSWORD\n$AWS_SECRET_ACCESS_KEY\n/world/\n")
    row = panel.create_backup(server)
    assert panel.wait_for_backup(row), site.process.output
    before = site.tree(server)
    for path in ("server.properties", "world/region/r.0.mca"):
        (root / path).write_text("changed")
    panel.restore_backup(row)
    assert panel.wait_for_restore(row)
    after = site.tree(server)
    assert after["server.properties"] == before["server.properties"]
    assert after["world/region/r.0.mca"] != before["world/region/r.0.mca"]  # it was left out
    assert not any(secret in site.recorded.text for secret in SECRETS)


@pytest.mark.parametrize("adapter", ["restic", "wings"])
def test_no_link_of_a_customer_is_written_through(
    site: Hostile, adapter: str, tmp_path: Path
) -> None:
    """Folders that were in the backup are links to the outside when it is restored."""
    panel = site.panel
    assert panel is not None
    server = site.add_server()
    root = site.root(server)
    row = panel.create_backup(server, adapter=adapter)
    assert panel.wait_for_backup(row)
    before = site.tree(server)
    outside = tmp_path / "outside"
    (outside / "region").mkdir(parents=True)
    (outside / "region" / "r.0.mca").write_text("precious")
    (outside / "properties").write_text("precious")
    for name in ("region/r.0.mca", "region/r.1.mca", "region/r.2.mca"):
        (root / "world" / name).unlink()
    (root / "world" / "region").rmdir()
    (root / "world" / "region").symlink_to(outside / "region")
    (root / "server.properties").unlink()
    (root / "server.properties").symlink_to(outside / "properties")
    panel.restore_backup(row)
    assert panel.wait_for_restore(row), site.process.output
    assert (outside / "region" / "r.0.mca").read_text() == "precious"
    assert (outside / "properties").read_text() == "precious"
    assert sorted(os.listdir(outside / "region")) == ["r.0.mca"]
    assert site.tree(server) == before


@pytest.mark.parametrize("adapter", ["restic", "wings"])
def test_links_that_are_swapped_in_during_a_restore_lead_nowhere(
    site: Hostile, adapter: str, tmp_path: Path
) -> None:
    """Players of the server's owner have its files by SFTP while the node writes them as root."""
    panel = site.panel
    assert panel is not None
    server = site.add_server(files=1500)
    row = panel.create_backup(server, adapter=adapter)
    assert panel.wait_for_backup(row)
    outside = tmp_path / "outside"
    (outside / "world" / "region").mkdir(parents=True)
    root = site.root(server)
    area = root / ".backupgw-restore"
    (root / "evil").mkdir()
    (root / "evil" / "new").symlink_to(outside)
    ended = threading.Event()
    swapped: list[str] = []

    def swap() -> None:
        while not ended.is_set() and len(swapped) < 2:
            with contextlib.suppress(OSError):
                if not swapped:  # a folder in what is being unpacked
                    os.rename(area / "new" / "world" / "region", root / "moved")
                    (area / "new" / "world" / "region").symlink_to(outside)
                    swapped.append("region")
                os.rename(area, root / "area")  # and then all of it
                area.symlink_to("evil")
                swapped.append("area")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        panel.restore_backup(row)
        panel.wait_for_restore(row)
    finally:
        ended.set()
        thread.join(60)
    assert "region" in swapped
    assert [path for path in outside.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("plant", ["file", "link", "folder", "journal"])
def test_what_a_customer_puts_where_restores_are_staged_harms_nobody(
    site: Hostile, plant: str, tmp_path: Path
) -> None:
    panel = site.panel
    assert panel is not None
    server = site.add_server()
    root = site.root(server)
    row = panel.create_backup(server, adapter="wings")
    assert panel.wait_for_backup(row)
    before = site.tree(server)
    outside = tmp_path / "outside"
    (outside / "new").mkdir(parents=True)
    (outside / "old").mkdir()
    (outside / "precious").write_text("precious")
    area = root / ".backupgw-restore"
    match plant:
        case "file":
            area.write_text("x")
        case "link":
            area.symlink_to(outside)
        case "folder":
            (area / "new" / "deep").mkdir(parents=True)
            (area / "old").symlink_to(outside)
        case "journal":
            area.mkdir()
            (area / "phase").write_text("in")
            (area / "new").symlink_to(outside)
            (area / "old").mkdir()
    panel.restore_backup(row, truncate=True)
    restored = panel.wait_for_restore(row)
    assert (outside / "precious").read_text() == "precious"
    assert sorted(os.listdir(outside)) == ["new", "old", "precious"]
    if not restored:  # then the customer's files are as they were
        if area.is_symlink() or area.is_file():
            area.unlink()
        else:
            subprocess.run(["rm", "-r", str(area)], check=True)
    assert site.tree(server) == before


@pytest.mark.root
@pytest.mark.parametrize("adapter", ["restic", "wings"])
def test_a_disk_that_gets_full_in_a_restore_costs_nothing(site: Hostile, adapter: str) -> None:
    """There are bytes enough, but no room for as many files: that is found out on the way."""
    panel = site.panel
    assert panel is not None
    server = str(uuid.uuid4())
    root = site.data / server
    root.mkdir()
    options = "size=256m,nr_inodes=80"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", root], check=True)
    try:
        panel.add_server(server)
        for number in range(50):
            (root / f"file{number}").write_bytes(b"x" * 1000)
        row = panel.create_backup(server, adapter=adapter)
        assert panel.wait_for_backup(row)
        (root / "file0").write_text("changed since")
        (root / "new").write_text("new since")
        before, inode = site.tree(server), root.stat().st_ino
        panel.restore_backup(row, truncate=True)
        assert not panel.wait_for_restore(row)
        assert f"restore {row.uuid} of {server} has failed" in site.process.output
        assert site.tree(server) == before
        assert root.stat().st_ino == inode
    finally:
        subprocess.run(["umount", "-l", root], check=True)
