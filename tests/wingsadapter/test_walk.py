"""A walk through every route with a real restic, on the gateway's own storage and on a folder."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator

import pytest
from tests.servers import peers
from tests.servers.panel import Panel

from .node_site import OWNER, NodeSite, wipe

pytestmark = [
    pytest.mark.peers(peers.RESTIC_OLD, peers.RESTIC_NEW),
]

ACCESS = struct.pack(
    "<I" + "HHI" * 5,
    2,
    *(0x01, 7, 0xFFFFFFFF),  # the owner, as run.sh's mode has it: 0750
    *(0x02, 4, 5000),  # a user more
    *(0x04, 5, 0xFFFFFFFF),
    *(0x10, 5, 0xFFFFFFFF),
    *(0x20, 0, 0xFFFFFFFF),
)
"""An access list (linux/posix_acl_xattr.h)."""


@pytest.fixture(scope="module", params=[peers.RESTIC_NEW, peers.RESTIC_OLD])
def walked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeSite]:
    """A node with each restic: the newest on a place of the gateway's, the oldest in a folder."""
    with Panel() as panel:
        folder = tmp_path_factory.mktemp("walk")
        old = request.param == peers.RESTIC_OLD
        site = NodeSite(
            folder,
            panel=panel,
            restic=request.param,
            repository=str(folder / "repository") if old else None,
        )
        site.make_repository()
        with site:
            yield site


def test_backup_list_status_restore_delete(walked: NodeSite) -> None:
    site, panel = walked, walked.panel
    assert panel is not None
    server = site.add_server()
    assert site.snapshots(server) == []
    root = site.root(server)
    before = site.tree(server)
    marks = {"user.note": b"a\0\xff\n=", "system.posix_acl_access": ACCESS}
    for name, value in marks.items():
        os.setxattr(root / "run.sh", name, value)
    os.setxattr(root / "empty", "user.note", b"of a folder")
    os.mkfifo(root / "console")
    with site.listening(server) as listener:
        row = panel.create_backup(server, early=1)
        assert panel.wait_for_backup(row)
        (told,) = listener.wait_for("backup completed")
    (root / "console").unlink()
    assert told == {
        "server_id": server, "backup_uuid": row.uuid, "is_successful": True, "checksum": "",
        "checksum_type": "sha1", "file_size": 0,
    }  # fmt: skip
    (listed,) = site.snapshots(server)
    assert row.checksum == f"restic:{listed['id']}"
    assert set(listed) == {"id", "short_id", "time", "backup_uuid", "server_uuid", "paths"}
    assert listed["short_id"] == listed["id"][:8]
    assert listed["backup_uuid"] == row.uuid
    assert listed["server_uuid"] == server
    assert listed["paths"] == [str(site.root(server))]
    (counted,) = site.snapshots(server, "?include_stats=true")
    assert counted["size"] == row.size > 6000
    assert counted["total_file_count"] >= 8
    status = site.request("GET", f"/api/servers/{server}/backup/{row.uuid}/status").json()
    assert status == {"exists": True, "snapshot": counted}
    missing = site.request("GET", f"/api/servers/{server}/backup/{uuid.uuid4()}/status")
    assert (missing.status_code, missing.json()) == (200, {"exists": False, "snapshot": None})

    inode = root.stat().st_ino
    (root / "world/region/r.0.mca").write_bytes(b"broken")
    (root / "run.sh").unlink()
    (root / "new").write_text("since then")
    panel.restore_backup(row, truncate=False)
    assert panel.wait_for_restore(row)
    after = site.tree(server)
    assert after.pop("new")[0] == "file"
    assert after == before

    (root / "world/region/r.0.mca").write_bytes(b"broken")
    with site.listening(server) as listener:
        panel.restore_backup(row, truncate=True)
        assert panel.wait_for_restore(row, 2)
        (told,) = listener.wait_for("backup restore completed")
    assert told == {"server_id": server, "backup_uuid": row.uuid}
    assert site.tree(server) == before
    assert root.stat().st_ino == inode
    for name, value in marks.items():
        assert os.getxattr(root / "run.sh", name) == value
    assert os.getxattr(root / "empty", "user.note") == b"of a folder"
    owners = {entry[-1] for entry in site.tree(server, owners=True).values()}
    assert owners == {OWNER}

    panel.delete_backup(row)
    assert site.snapshots(server) == []
    again = site.request("DELETE", f"/api/servers/{server}/backup/{row.uuid}")
    assert again.status_code == 204


def test_from_one_server_to_another(walked: NodeSite) -> None:
    site, panel = walked, walked.panel
    assert panel is not None
    source, target = site.add_server(), site.add_server()
    row = panel.create_backup(source)
    assert panel.wait_for_backup(row)
    panel.restore_backup(row, server=target, truncate=True)
    assert panel.wait_for_restore(row)
    assert site.tree(target) == site.tree(source)
    assert site.snapshots(target) == []


def test_some_files_only(walked: NodeSite) -> None:
    site, panel = walked, walked.panel
    assert panel is not None
    server = site.add_server()
    before = site.tree(server)
    row = panel.create_backup(server)
    assert panel.wait_for_backup(row)
    wipe(site.root(server))
    panel.restore_backup(row, truncate=True, paths=["server.properties", "/world/region/"])
    assert panel.wait_for_restore(row)
    after = site.tree(server)
    assert set(after) == {"server.properties", "world", "world/region"} | {
        name for name in before if name.startswith("world/region/")
    }
    panel.restore_backup(row, paths=["no/such"])
    assert not panel.wait_for_restore(row, 2)
    assert site.tree(server) == after


def test_ignored_files_are_left_out(walked: NodeSite) -> None:
    site, panel = walked, walked.panel
    assert panel is not None
    server = site.add_server()
    (site.root(server) / ".pelicanignore").write_text("/world/\n")
    row = panel.create_backup(server)
    assert panel.wait_for_backup(row)
    other = panel.create_backup(server, ignore="/empty/\n*.sh\n[$RESTIC_PASSWORD")
    assert panel.wait_for_backup(other)
    for each, there, gone in ((row, "run.sh", "world"), (other, "world", "run.sh")):
        wipe(site.root(server))
        panel.restore_backup(each)
        assert panel.wait_for_restore(each)
        assert there in site.tree(server)
        assert gone not in site.tree(server)


def test_all_backups_of_a_server(walked: NodeSite) -> None:
    site, panel = walked, walked.panel
    assert panel is not None
    server, other = site.add_server(), site.add_server()
    rows = [panel.create_backup(each) for each in (server, server, other)]
    assert all(panel.wait_for_backup(row) for row in rows)
    answer = site.request("DELETE", f"/api/servers/{server}/deleteAllBackups")
    assert (answer.status_code, answer.content) == (204, b"")
    assert site.snapshots(server) == []
    assert len(site.snapshots(other)) == 1
