"""Uploads to folders: whose they are, what they count, and what becomes of them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.servers.vfs_gateway import VfsGateway
from tests.vfsproxy.file_process import OCTETS, TUS, metadata
from tests.vfsproxy.folder_client import Documents

from backupgw.kvstore.ledger import NOTHING
from backupgw.runtime.settings import load
from backupgw.vfsproxy.core import Core
from backupgw.vfsproxy.folders.lifecycle import Wanted
from backupgw.vfsproxy.folders.records import Limits, Permission
from backupgw.vfsproxy.tus.bodies import Space
from backupgw.vfsproxy.tus.database import DatabaseUploads
from backupgw.vfsproxy.tus.reaping import reap
from backupgw.vfsproxy.tus.records import Upload

from .conftest import Inside, user


@pytest.fixture
def alice(gateway: VfsGateway) -> Iterator[httpx.Client]:
    with gateway.client("alice") as client:
        yield client


@pytest.fixture
def docs(gateway: VfsGateway, alice: httpx.Client, request: pytest.FixtureRequest) -> Documents:
    return Documents(gateway, alice, f"u{abs(hash(request.node.nodeid)) % 10**9}")


def start(docs: Documents, length: int, name: str = "a.bin", **headers: str) -> str:
    told = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(filename=name)}
    answer = docs.client.post(f"{docs.url}/uploads", headers={**told, **headers})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(client: httpx.Client, url: str, offset: int, data: bytes) -> httpx.Response:
    return client.patch(url, headers={**OCTETS, "Upload-Offset": str(offset)}, content=data)


def test_an_upload_is_looked_at_without_disturbing_it(docs: Documents) -> None:
    url = start(docs, 10, "dir/a.bin")
    patch(docs.client, url, 0, b"12345")
    told = docs.client.get(url).json()
    assert (told["path"], told["offset"], told["length"]) == ("dir/a.bin", 5, 10)
    assert (told["state"], told["kind"], told["folder"]) == ("open", "whole", docs.id)
    listed = docs.client.get(f"{docs.url}/uploads").json()["items"]
    assert listed == [told]
    assert docs.client.get(f"{docs.url}/uploads", params={"path": "dir"}).json()["items"] == [told]
    assert docs.client.get(f"{docs.url}/uploads", params={"path": "di"}).json()["items"] == []
    # Not among the files, until it is one.
    assert docs.names() in ([], ["dir"])
    patch(docs.client, url, 5, b"67890")
    assert docs.client.get(url).json()["state"] == "done"
    assert docs.client.get(f"{docs.url}/uploads").json()["items"] == []
    assert docs.get("dir/a.bin").content == b"1234567890"


def test_it_is_nobody_elses(gateway: VfsGateway, docs: Documents) -> None:
    url = start(docs, 10)
    with gateway.client("mallory") as mallory:
        assert mallory.head(url, headers=TUS).status_code == 404
        assert mallory.get(url).status_code == 404
        assert patch(mallory, url, 0, b"evil").status_code == 404
        assert mallory.delete(url, headers=TUS).status_code == 404
        told = {**TUS, "Upload-Length": "1", "Upload-Metadata": metadata(filename="x")}
        assert mallory.post(f"{docs.url}/uploads", headers=told).status_code == 404
    with httpx.Client(base_url=gateway.url) as stranger:
        assert stranger.head(url, headers=TUS).status_code == 401
        assert patch(stranger, url, 0, b"evil").status_code == 401
    assert docs.client.head(url, headers=TUS).headers["upload-offset"] == "0"


def test_its_room_is_reserved_from_the_beginning(
    gateway: VfsGateway, alice: httpx.Client, docs: Documents
) -> None:
    small = Documents(gateway, alice, f"s{docs.id[:9]}", limits={"bytes": 1000, "files": 3})
    url = start(small, 600, "a")
    told = {**TUS, "Upload-Length": "401", "Upload-Metadata": metadata(filename="b")}
    refused = alice.post(f"{small.url}/uploads", headers=told)
    assert (refused.status_code, refused.json()["error_code"]) == (507, "quota-exceeded")
    small.put("b", bytes(401), status=507)
    assert alice.delete(url, headers=TUS).status_code == 204
    small.put("b", bytes(401))
    assert small.used() == (401, 1)


def test_an_upload_whose_room_is_gone_begins_anew(gateway: VfsGateway, docs: Documents) -> None:
    """Of a small one that has sent nothing, room is all there is; a ledger may be made anew."""
    url = start(docs, 10)
    with Core(load(gateway.config), lambda _event: None) as core:
        upload = DatabaseUploads(core.database).find(url.rpartition("/")[2])
        assert upload is not None
        assert upload.token is not None
        number = re.search(r"number\W+(\d+)", upload.token)
        assert number is not None
        core.accounts.ledger.release(int(number[1]))
    assert docs.client.head(url, headers=TUS).headers["upload-offset"] == "0"
    assert patch(docs.client, url, 0, b"1234567890").status_code == 204
    assert docs.get("a.bin").content == b"1234567890"
    assert docs.used() == (10, 1)


def test_what_is_deleted_takes_its_uploads_along(docs: Documents) -> None:
    docs.put("dir/old", b"1")
    url = start(docs, 10, "dir/sub/new")
    patch(docs.client, url, 0, b"12345")
    other = start(docs, 10, "directory/other")
    moved = docs.post("move", source="dir", target="elsewhere")
    assert (moved.status_code, moved.json()["error_code"]) == (409, "uploads-under-way")
    assert docs.client.delete(f"{docs.url}/files/dir?recursive=true").status_code == 200
    assert docs.client.head(url, headers=TUS).status_code == 404
    assert "dir" not in docs.names()
    assert docs.client.head(other, headers=TUS).status_code == 200
    assert docs.used() == (0, 0)


def test_trees_are_deleted_in_the_background(docs: Documents) -> None:
    for number in range(60):
        docs.put(f"tree/d{number % 7}/f{number}", b"12")
    docs.put("kept", b"1")
    url = start(docs, 10, "tree/new")
    patch(docs.client, url, 0, b"12345")
    assert docs.post("delete-async", paths=["tree", "nothing"]).status_code == 404
    given = docs.post("delete-async", paths=["tree"])
    assert given.status_code == 202
    task = docs.client.get(f"/v1/tasks/{given.json()['task']}").json()
    ended = time.monotonic() + 30
    while task["state"] in ("queued", "running") and time.monotonic() < ended:
        time.sleep(0.05)
        task = docs.client.get(f"/v1/tasks/{task['id']}").json()
    assert (task["state"], task["result"]) == ("succeeded", {"files": 60 + 7 + 1})
    assert (docs.names(), docs.used()) == (["kept"], (1, 1))
    assert docs.client.head(url, headers=TUS).status_code == 404


def test_a_deleted_folder_takes_no_more(docs: Documents) -> None:
    url = start(docs, 10)
    assert docs.client.delete(docs.url).status_code == 200
    assert patch(docs.client, url, 0, b"1234567890").status_code == 409
    assert docs.client.post(f"{docs.url}/restore").status_code == 200
    assert patch(docs.client, url, 0, b"1234567890").status_code == 204
    assert docs.get("a.bin").content == b"1234567890"


def test_options_need_no_key_and_browsers_may_ask(gateway: VfsGateway, docs: Documents) -> None:
    with httpx.Client(base_url=gateway.url) as stranger:
        told = stranger.options(f"{docs.url}/uploads")
        assert (told.status_code, told.headers["tus-version"]) == (204, "1.0.0")
        asked = {
            "Origin": "https://panel.example",
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "upload-offset,tus-resumable",
        }
        told = stranger.options("/v1/uploads/" + "0" * 32, headers=asked)
        assert "PATCH" in told.headers["access-control-allow-methods"]
        assert "Upload-Offset" in told.headers["access-control-allow-headers"]


class TestExpiry:
    def test_what_is_late_makes_room(self, inside: Inside) -> None:
        alice = user("alice")
        folder = inside.lifecycle.create(alice, Wanted(name="docs", limits=Limits(bytes=100)))
        store = DatabaseUploads(inside.core.database)

        def begin(name: str, lifetime: float) -> Upload:
            access = inside.core.folders.resolve(alice, folder.id, Permission.READ_WRITE)
            writer = access.files.open_writer(name, size=50)
            writer.write(b"x" * 20)
            token = writer.checkpoint()
            upload = Upload(f"{name:>032}", folder.id, "alice", name, 50, offset=20, token=token)
            return store.add(upload, lifetime)

        def space_of(folder_id: str) -> Space:
            access = inside.core.folders.resolve(alice, folder_id, Permission.READ_WRITE)
            return Space(access.files, access.staging)

        begin("late", 0.0)
        kept = begin("kept", 3600.0)
        time.sleep(0.01)
        assert inside.core.accounts.usage(folder.scope).reserved.bytes == 100
        assert reap(store, space_of) == 1
        assert inside.core.accounts.usage(folder.scope).reserved.bytes == 50
        assert store.find(f"{'late':>032}") is None
        assert store.find(kept.id) == kept
        assert [path.name for path in parts(inside.volume)] == [parts(inside.volume)[0].name]
        assert reap(store, space_of) == 0
        held = store.take(kept.id, 60, ending=False)
        assert held is not None
        store.keep(held, kept, 0.0, release=False)
        time.sleep(0.01)
        assert reap(store, space_of) == 0  # somebody works on it
        store.release(held)
        # Of a folder that is gone only the record is left.
        assert reap(store, lambda _folder: None) == 1
        space_of(folder.id).items.abort_writer(kept.token or "")
        assert inside.core.accounts.usage(folder.scope).reserved == NOTHING
        assert parts(inside.volume) == []


def parts(volume: Path) -> list[Path]:
    return [path for path in volume.rglob(".backupgw-part-*") if path.is_file()]
