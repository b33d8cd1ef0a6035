"""The holes of Backend.AI's storage proxy, on its own wire: what each must not let happen.

    pytest tests/vfsproxy/test_holes.py                           # ours has none of them
    BACKUPGW_HOLES=backend-ai pytest tests/vfsproxy/test_holes.py # theirs has: nearly all fail

The second says that these tests can fail; `tests/servers/backend_ai.py` says how it is installed.
Holes that are not on this wire have their tests with what they are about: staging that is never
reaped in test_uploads_api and test_tasks, snapshots and mounts in test_tasks and test_manager_wire,
usage that takes too long in test_many_files, moves between folders in test_files.
"""

from __future__ import annotations

import io
import os
import socket
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.faults.volumes import fill_bytes, tmpfs
from tests.servers.backend_ai import MANAGER_SECRET, BackendAi
from tests.servers.vfs_gateway import MANAGER_TOKEN, VfsGateway

from .test_people_api import follow

OF_BACKEND_AI = os.environ.get("BACKUPGW_HOLES") == "backend-ai"
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


class Site:
    """A server's two APIs, and one folder of it.

    Attributes:
        volume: where all folders lie; at: this one.
    """

    def __init__(self, client_url: str, manager: httpx.Client, volume: Path) -> None:
        self.client_url, self.manager, self.volume = client_url, manager, volume
        self.owner = f"user:{uuid.uuid4()}"
        self.call("POST", "/quota-scope", qsid=self.owner, options=None)
        self.vfid, self.at = self.make()

    def make(self) -> tuple[str, Path]:
        """Make another folder; return its `vfid` and where it lies."""
        folder = uuid.uuid4().hex
        vfid = f"{self.owner}/{folder}"
        assert self.call("POST", "/folder/create", vfid=vfid, options=None).status_code == 204
        return vfid, self.path_of(vfid)

    def path_of(self, vfid: str) -> Path:
        """Return where a folder lies."""
        scope, _, folder = vfid.partition("/")
        if OF_BACKEND_AI:
            scope = scope.partition(":")[2].replace("-", "")
        return self.volume / scope / folder[:2] / folder[2:4] / folder[4:]

    def call(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Ask as the manager."""
        return self.manager.request(method, path, json={"volume": "main", **body})

    def token(self, what: str, **body: Any) -> str | None:
        """Return a token for a transfer; None where it is refused."""
        answer = self.call("POST", f"/folder/file/{what}", vfid=self.vfid, **body)
        return answer.json()["token"] if answer.status_code == 200 else None

    def upload(self, relpath: str, data: bytes, *, size: int | None = None, **query: str) -> int:
        """Upload a file; return how that was answered."""
        size = len(data) if size is None else size
        answer = self.call(
            "POST", "/folder/file/upload", vfid=self.vfid, relpath=relpath, size=size
        )
        if answer.status_code != 200:
            return answer.status_code
        return self.patch(answer.json()["token"], data, **query)

    def patch(self, token: str, data: bytes | Iterator[bytes], **query: str) -> int:
        """Send all bytes of an upload."""
        url, headers = f"{self.client_url}/upload", {**TUS, "Upload-Offset": "0"}
        params = {"token": token, **query}
        return httpx.patch(url, params=params, headers=headers, content=data).status_code

    def clone(self, target: str) -> httpx.Response:
        """Clone the folder, and wait until that has ended where it has begun."""
        which = {"src_volume": "main", "src_vfid": self.vfid}
        body = {**which, "dst_volume": "main", "dst_vfid": target}
        answer = self.manager.request("POST", "/folder/clone", json=body)
        if answer.status_code == 200:
            self.wait(answer)
        return answer

    def wait(self, answer: httpx.Response) -> None:
        """Wait until a task in the background has ended."""
        if OF_BACKEND_AI:
            time.sleep(2)  # its events go to a manager; small folders take a moment
            return
        follow(self.manager, answer.json()["bgtask_id"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, httpx.Client, Path]]:
    folder = tmp_path_factory.mktemp("holes")
    shown = "x-backendai-storage-auth-token"
    if OF_BACKEND_AI:
        with (
            BackendAi(folder) as theirs,
            httpx.Client(
                base_url=f"http://127.0.0.1:{theirs.manager_port}",
                headers={shown: MANAGER_SECRET},
            ) as manager,
        ):
            yield f"http://127.0.0.1:{theirs.client_port}", manager, folder / "volume"
    else:
        with VfsGateway(folder) as ours, ours.manager() as manager:
            assert manager.headers[shown] == MANAGER_TOKEN
            yield ours.url, manager, ours.volume


@pytest.fixture
def site(server: tuple[str, httpx.Client, Path]) -> Site:
    return Site(*server)


def stray(site: Site, name: str) -> list[Path]:
    """Return what has a name outside the folder."""
    return [path for path in site.volume.parent.rglob(name) if site.at not in path.parents]


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_an_upload_stays_in_its_folder(site: Site, steps: int) -> None:
    name = f"escaped{uuid.uuid4().hex}"
    site.upload("../" * steps + name, b"out")
    assert not stray(site, name)


def test_nor_does_the_place_that_the_client_names_lead_out(site: Site) -> None:
    name = f"escaped{uuid.uuid4().hex}"
    site.upload(name, b"out", dst_dir="../../../..")
    assert not stray(site, name)


def test_an_archive_has_nothing_that_links_point_to(site: Site, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    (site.at / "data" / "deep").mkdir(parents=True)
    (site.at / "data" / "real").write_text("real")
    (site.at / "data" / "deep" / "link").symlink_to(tmp_path / "key")
    (site.at / "data" / "folder").symlink_to(tmp_path)
    token = site.token("download", relpath="data", archive=True)
    assert token is not None
    answer = httpx.get(f"{site.client_url}/download", params={"token": token, "archive": "1"})
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        files = [name for name in found.namelist() if not name.endswith("/")]
        assert [name.rpartition("/")[2] for name in files] == ["real"]


def test_a_clone_has_nothing_that_links_point_to(site: Site, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    (site.at / "real").write_text("real")
    (site.at / "link").symlink_to(tmp_path / "key")
    target = f"{site.owner}/{uuid.uuid4().hex}"
    assert site.clone(target).status_code == 200
    assert [path.name for path in site.path_of(target).rglob("*") if path.is_file()] == ["real"]


def test_a_clone_leaves_what_is_there(site: Site) -> None:
    (site.at / "from").write_text("from")
    vfid, at = site.make()
    (at / "precious").write_text("precious")
    assert site.clone(vfid).status_code == 409
    assert [path.name for path in at.iterdir()] == ["precious"]


@pytest.mark.parametrize("inside", [False, True])
def test_deleting_a_link_leaves_what_it_points_to(site: Site, tmp_path: Path, inside: bool) -> None:
    target = (site.at if inside else tmp_path) / "target"
    target.mkdir()
    (target / "kept").write_text("kept")
    (site.at / "link").symlink_to(target)
    site.call("POST", "/folder/file/delete", vfid=site.vfid, relpaths=["link"], recursive=True)
    assert (target / "kept").read_text() == "kept"


@pytest.mark.parametrize("how", ["delete", "delete-async"])
def test_deleting_a_folder_leaves_what_links_in_it_point_to(
    site: Site, tmp_path: Path, how: str
) -> None:
    for target in (tmp_path / "outside", site.at / "inside"):
        target.mkdir()
        (target / "kept").write_text("kept")
    (site.at / "gone" / "deep").mkdir(parents=True)
    (site.at / "gone" / "deep" / "file").write_text("gone")
    (site.at / "gone" / "deep" / "folder").symlink_to(tmp_path / "outside")
    (site.at / "gone" / "deep" / "other").symlink_to("../../inside")
    (site.at / "gone" / "one").symlink_to(site.at / "inside" / "kept")
    body = {"relpaths": ["gone"], "recursive": True}
    answer = site.call("POST", f"/folder/file/{how}", vfid=site.vfid, **body)
    if answer.status_code == 202:
        site.wait(answer)
    assert not (site.at / "gone" / "deep" / "file").exists()
    assert (tmp_path / "outside" / "kept").read_text() == "kept"
    assert (site.at / "inside" / "kept").read_text() == "kept"


@pytest.mark.parametrize("told", [True, False])
def test_an_upload_is_no_longer_than_it_was_said_to_be(site: Site, told: bool) -> None:
    body = b"0123456789"
    token = site.token("upload", relpath="grown", size=4)
    assert token is not None
    # Without a Content-Length it shows only as it comes.
    assert site.patch(token, body if told else iter([body[:3], body[3:]])) == 413
    assert not (site.at / "grown").exists()


def test_what_came_before_a_break_is_kept(site: Site) -> None:
    size = 1 << 20
    token = site.token("upload", relpath="broken", size=size)
    assert token is not None
    where = urlsplit(site.client_url)
    head = (
        f"PATCH /upload?token={token} HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\n"
        f"Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
        f"Content-Length: {size}\r\n\r\n"
    )
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(head.encode() + bytes(size // 2))
    told = {"token": token}
    for _ in range(3):  # the first may have to wait until the other request has ended
        found = httpx.head(f"{site.client_url}/upload", params=told, headers=TUS, timeout=30)
        if found.status_code == 200:
            break
    assert int(found.headers["upload-offset"]) == size // 2


def test_limits_are_looked_at(site: Site) -> None:
    scope = {"qsid": site.owner, "options": {"limit_bytes": 1000}}
    site.call("PATCH", "/quota-scope", **scope)
    try:
        assert site.upload("too large", bytes(2000)) == 507
        assert site.upload("fits", bytes(900)) == 204
        assert site.upload("no longer", bytes(200)) == 507
        assert sum(path.stat().st_size for path in site.at.rglob("*") if path.is_file()) == 900
    finally:
        site.call("DELETE", "/quota-scope/quota", qsid=site.owner)


def test_a_list_is_of_everything(site: Site) -> None:
    for number in range(1500):
        (site.at / f"{number}").touch()
    listed = site.call("POST", "/folder/file/list", vfid=site.vfid, relpath=".").json()
    assert len(listed["items"]) == 1500


@pytest.mark.parametrize("verb", ["rename", "move", "upload"])
def test_nothing_is_replaced_unasked(site: Site, verb: str) -> None:
    (site.at / "a").write_text("a")
    (site.at / "b").write_text("precious")
    if verb == "upload":
        site.upload("b", b"other")
    elif verb == "rename":
        body = {"relpath": "a", "new_name": "b"}
        site.call("POST", "/folder/file/rename", vfid=site.vfid, **body)
    else:
        body = {"src_relpath": "a", "dst_relpath": "b"}
        site.call("POST", "/folder/file/move", vfid=site.vfid, **body)
    assert (site.at / "b").read_text() == "precious"


def test_an_upload_does_not_bring_a_deleted_folder_back(site: Site) -> None:
    token = site.token("upload", relpath="late", size=4)
    assert token is not None
    site.wait(site.call("POST", "/folder/delete", vfid=site.vfid))
    assert site.patch(token, b"late") in (404, 409, 410)
    assert not site.at.exists()


@pytest.mark.root
def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    """And nothing is counted for what did not fit."""
    with (
        tmpfs(tmp_path, megabytes=8, inodes=900) as volume,
        VfsGateway(tmp_path / "gateway", volume=volume / "v") as gateway,
        gateway.client("alice") as client,
    ):
        made = client.post("/v1/folders", json={"name": "full"}).json()
        url = f"/v1/folders/{made['id']}"
        fill_bytes(volume, leave=1 << 20)
        for size in (4096, 2 << 20):
            answers = [
                client.put(f"{url}/files/{size}-{n}", content=bytes(size)) for n in range(300)
            ]
            refused = [answer for answer in answers if answer.status_code != 201]
            assert refused
            assert {answer.status_code for answer in refused} == {507}
            assert {answer.json()["error_code"] for answer in refused} == {"storage-full"}
        stored = client.get(f"{url}/entries").json()["items"]
        quota = client.get(url).json()["quota"]
        assert quota["used_files"] == len(stored)
        assert quota["used_bytes"] == sum(entry["size"] for entry in stored)
