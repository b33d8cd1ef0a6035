"""What is done with folders is logged with the folder, the backend and the operation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.servers.vfs_gateway import VfsGateway

from .folder_client import Documents


def records(gateway: VfsGateway) -> list[dict[str, Any]]:
    found = []
    for line in gateway.process.lines:
        if line.startswith("{"):
            found.append(json.loads(line))
    return [record for record in found if record["logger"].endswith("operation_log")]


def test_every_transfer_is_told_where_that_is_asked_for(tmp_path: Path) -> None:
    with (
        VfsGateway(tmp_path, vfs="operation_log = true\n") as gateway,
        gateway.client("alice") as alice,
    ):
        docs = Documents(gateway, alice, "docs", limits={"bytes": 10})
        docs.put("a", b"12345")
        docs.get("a")
        docs.get("none")
        docs.put("b", b"123456", status=507)
        link = docs.post("links", paths=["a"]).json()
        assert alice.get(link["url"]).status_code == 200
    told = records(gateway)
    mine = [record for record in told if record["vfolder_id"] == docs.id]
    assert [(record["operation"], record["status"], record["level"]) for record in mine] == [
        ("files.upload", 201, "info"),
        ("files.download", 200, "info"),
        ("files.download", 404, "info"),
        ("files.upload", 507, "warning"),
        ("transfers.link", 201, "info"),
        ("transfers.download", 200, "info"),
    ]
    assert {record["backend"] for record in mine} == {"vfs"}
    assert {record["user"] for record in mine} == {"alice"}
    assert mine[3]["error_code"] == "quota-exceeded"
    assert all(0 <= record["seconds"] < 60 for record in mine)


def test_failures_are_told_in_any_case(tmp_path: Path) -> None:
    with VfsGateway(tmp_path) as gateway, gateway.client("alice") as alice:
        docs = Documents(gateway, alice, "docs", limits={"bytes": 10})
        docs.put("a", b"12345")
        docs.put("b", b"123456", status=507)
    assert [(record["vfolder_id"], record["status"]) for record in records(gateway)] == [
        (docs.id, 507)
    ]
