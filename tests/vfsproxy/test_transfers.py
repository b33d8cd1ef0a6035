"""Single transfers by tokens, with the client that Backend.AI's users have; files for managers."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiotusclient import client as tus_client
from tests.servers.vfs_gateway import VfsGateway

from .test_folders_api import make, problem
from .test_people_api import follow


class Site:
    """A folder that a manager has made, and what it can do there."""

    def __init__(self, gateway: VfsGateway, client: httpx.Client) -> None:
        self.gateway = gateway
        self.client = client
        self.which = {"volume": "main", "vfid": f"user:{uuid.uuid4()}/{uuid.uuid4().hex}"}
        assert self.call("POST", "/folder/create").status_code == 204

    def call(self, method: str, path: str, **body: Any) -> httpx.Response:
        return self.client.request(method, path, json={**self.which, **body})

    def token(self, what: str, **body: Any) -> str:
        answer = self.call("POST", f"/folder/file/{what}", **body)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["token"]
        return token

    def url(self, route: str, token: str) -> str:
        return f"{self.gateway.url}/{route}?token={token}"

    def put(self, path: str, content: bytes) -> None:
        url = self.url("upload", self.token("upload", relpath=path, size=len(content)))
        if content:
            answer = patch(url, 0, content)
            assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(len(content)))

    def used(self, files: int, size: int) -> bool:
        """Whether the folder holds that much; what another process has just settled shows soon."""
        wanted = {"file_count": files, "used_bytes": size}
        deadline = time.monotonic() + 10
        while (found := self.call("GET", "/folder/usage").json()) != wanted:
            if time.monotonic() > deadline:
                raise AssertionError(f"{found} is not {wanted}")
            time.sleep(0.05)
        return True

    @property
    def at(self) -> Path:
        scope, _, folder = self.which["vfid"].partition("/")
        return self.gateway.volume / scope / folder[:2] / folder[2:4] / folder[4:]


def patch(url: str, offset: int, content: bytes) -> httpx.Response:
    headers = {
        "tus-resumable": "1.0.0",
        "upload-offset": str(offset),
        "content-type": "application/offset+octet-stream",
    }
    return httpx.patch(url, content=content, headers=headers)


@pytest.fixture
def site(gateway: VfsGateway) -> Iterator[Site]:
    with gateway.manager() as client:
        yield Site(gateway, client)


def test_the_users_client_uploads_breaks_off_and_goes_on(site: Site) -> None:
    content = os.urandom(300_000)
    url = site.url("upload", site.token("upload", relpath="a/b.bin", size=len(content)))

    async def upload(offset: int, stop_at: int | None) -> None:
        uploader = tus_client.TusClient().async_uploader(
            file_stream=io.BytesIO(content), url=url, chunk_size=64 << 10, retries=0
        )
        # Its own way to find out where to go on fails in itself (0.1.4, get_offset).
        uploader.offset = offset
        await uploader.upload(stop_at)

    asyncio.run(upload(0, 100_000))
    kept = httpx.head(url, headers={"tus-resumable": "1.0.0"})
    assert 100_000 <= int(kept.headers["upload-offset"]) < len(content)
    assert kept.headers["upload-length"] == str(len(content))
    assert kept.headers["cache-control"] == "no-store"
    assert site.used(0, 0)
    listed = site.call("POST", "/folder/file/list", relpath="a").json()
    assert listed == {"items": []}, "what is gathered is not listed"
    asyncio.run(upload(int(kept.headers["upload-offset"]), None))
    assert (site.at / "a/b.bin").read_bytes() == content
    assert site.used(1, len(content))
    link = site.url("download", site.token("download", relpath="a/b.bin"))
    assert hashlib.sha256(httpx.get(link).content).digest() == hashlib.sha256(content).digest()


def test_an_empty_upload_is_done_when_it_is_begun(site: Site) -> None:
    site.token("upload", relpath="empty", size=0)
    assert (site.at / "empty").read_bytes() == b""


def test_a_link_downloads_whole_or_a_range(site: Site) -> None:
    site.put("numbers", b"0123456789")
    link = site.url("download", site.token("download", relpath="numbers"))
    whole = httpx.get(link)
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["access-control-allow-origin"] == "*"
    part = httpx.get(link, headers={"range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert httpx.get(link, headers={"range": "bytes=10-"}).status_code == 416
    same = httpx.get(link, headers={"if-none-match": whole.headers["etag"]})
    assert same.status_code in (200, 304)  # a file that is this young has a weak tag
    problem(httpx.get(f"{link}&no_cache=YES"), 400, "invalid")
    head = httpx.head(f"{link}&dst_dir=x&no_cache=1")
    assert (head.status_code, head.headers["content-length"]) == (200, "10")


def test_folders_are_sent_as_archives(site: Site, tmp_path: Path) -> None:
    site.put("data/one", b"1")
    site.put("data/deep/two", b"22")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (site.at / "data" / "link").symlink_to(secret)
    refused = site.call("POST", "/folder/file/download", relpath="data")
    problem(refused, 409, "is-a-folder")
    token = site.token("download", relpath="data", archive=True)
    problem(httpx.get(site.url("download", token)), 409, "is-a-folder")
    for content in (
        httpx.get(f"{site.url('download', token)}&archive=1").content,
        httpx.get(
            site.url("download-archive", site.token("archive-download-token", files=["data"]))
        ).content,
    ):
        with zipfile.ZipFile(io.BytesIO(content)) as found:
            files = {name for name in found.namelist() if not name.endswith("/")}
            assert {name.removeprefix("data/") for name in files} == {"one", "deep/two"}
            assert b"secret" not in content


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/x", "a/./b", "", "a\0b", "a\nb", ".backupgw/x", "x" * 256, "..\\x"],
)
def test_no_path_leads_out(site: Site, path: str) -> None:
    for what, body in (
        ("upload", {"relpath": path, "size": 1}),
        ("fetch", {"relpath": path}),
        ("mkdir", {"relpath": path}),
        ("rename", {"relpath": path, "new_name": "a"}),
        ("move", {"src_relpath": "a", "dst_relpath": path}),
        ("delete", {"relpaths": [path]}),
    ):
        answer = site.call("POST", f"/folder/file/{what}", **body)
        assert answer.status_code in (400, 404), (what, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    assert not list(site.at.iterdir())


def test_an_upload_beyond_its_size_is_refused(site: Site) -> None:
    url = site.url("upload", site.token("upload", relpath="a", size=4))
    assert patch(url, 0, b"12345").status_code == 413
    assert patch(url, 2, b"34").status_code == 409
    assert patch(url, 0, b"12").status_code == 204
    assert patch(url, 0, b"12").status_code == 409
    assert patch(url, 2, b"34").status_code == 204
    assert (site.at / "a").read_bytes() == b"1234"
    again = site.call("POST", "/folder/file/upload", relpath="a", size=1)
    assert again.status_code == 409, "nothing is replaced unasked"


def test_an_answer_that_was_lost_is_given_again(site: Site) -> None:
    url = site.url("upload", site.token("upload", relpath="a/b", size=4))
    head = {"Tus-Resumable": "1.0.0"}
    assert httpx.head(url, headers=head).headers["upload-offset"] == "0"
    for _ in range(2):
        answer = patch(url, 0, b"1234") if not (site.at / "a").exists() else patch(url, 4, b"")
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, "4")
    assert httpx.head(url, headers=head).headers["upload-offset"] == "4"
    assert site.used(1, 4)


def test_who_comes_second_to_a_name_is_told(site: Site) -> None:
    first, same, other = (
        site.url("upload", site.token("upload", relpath="a", size=4)) for _ in range(3)
    )
    assert patch(first, 0, b"1234").status_code == 204
    problem(patch(other, 0, b"5678"), 409, "file-exists")
    assert patch(same, 0, b"1234").status_code == 204, "the file is what was sent"
    assert (site.at / "a").read_bytes() == b"1234"
    assert site.used(1, 4)


def test_room_goes_with_the_upload_that_it_was_kept_for(site: Site) -> None:
    scope = {"volume": "main", "qsid": site.which["vfid"].partition("/")[0]}
    site.client.request("PATCH", "/quota-scope", json={**scope, "options": {"limit_bytes": 100}})
    for name in ("first", "second"):
        site.put(name, bytes(40))
    problem(
        site.call("POST", "/folder/file/upload", relpath="third", size=40), 507, "quota-exceeded"
    )
    site.call("POST", "/folder/file/delete", relpaths=["first"])
    url = site.url("upload", site.token("upload", relpath="third", size=60))
    assert patch(url, 0, bytes(20)).status_code == 204
    assert patch(url, 20, bytes(40)).status_code == 204
    assert site.used(2, 100)


def test_an_upload_without_room_is_refused_at_once(site: Site) -> None:
    scope = {"volume": "main", "qsid": site.which["vfid"].partition("/")[0]}
    site.client.request("PATCH", "/quota-scope", json={**scope, "options": {"limit_bytes": 100}})
    site.token("upload", relpath="first", size=60)
    full = site.call("POST", "/folder/file/upload", relpath="second", size=60)
    told = problem(full, 507, "quota-exceeded")
    assert told["data"]["limit"] == 100  # type: ignore[index]
    assert told["data"]["reserved"] == 60  # type: ignore[index]


def test_tokens_are_for_one_thing_and_end(site: Site) -> None:
    site.put("a", b"1")
    download = site.token("download", relpath="a")
    upload = site.token("upload", relpath="b", size=1)
    claims = jwt.decode(download, options={"verify_signature": False})
    forged = jwt.encode({**claims, "relpath": "b"}, "x" * 32, algorithm="HS256")
    unsigned = jwt.encode(claims, "", algorithm="none")
    head, _, signature = download.split(".")
    changed = ".".join((head, forged.split(".")[1], signature))
    for token in (upload, forged, unsigned, changed, f"{head}.e30.", "x", download + "x"):
        problem(httpx.get(site.url("download", token)), 401, "unauthorised")
    assert patch(site.url("upload", download), 0, b"1").status_code == 401
    assert claims["exp"] <= time.time() + 3600 + 5
    assert {"op", "volume", "vfid", "relpath", "exp"} <= claims.keys()
    # What is deleted cannot be downloaded by a link that was made before.
    site.call("POST", "/folder/delete")
    assert httpx.get(site.url("download", download)).status_code in (404, 409)


def test_files_for_managers(site: Site) -> None:
    made = site.call("POST", "/folder/file/mkdir", relpath=["x", "y/z", "../out"])
    assert made.status_code == 207
    assert [each["item"] for each in made.json()["results"]["success"]] == ["x", "y/z"]
    assert site.call("POST", "/folder/file/mkdir", relpath=["../out"]).status_code == 422
    problem(site.call("POST", "/folder/file/mkdir", relpath="x"), 409, "file-exists")
    site.put("x/file", b"12345")
    items = site.call("POST", "/folder/file/list", relpath="x").json()["items"]
    assert [(each["name"], each["type"], each["stat"]["size"]) for each in items] == [
        ("file", "FILE", 5)
    ]
    names = {each["name"] for each in site.call("POST", "/folder/file/list").json()["items"]}
    assert names == {"x", "y"}
    assert site.call("POST", "/folder/file/fetch", relpath="x/file").content == b"12345"
    renamed = site.call("POST", "/folder/file/rename", relpath="x/file", new_name="other")
    assert renamed.status_code == 204
    site.put("taken", b"")
    move = {"src_relpath": "x/other", "dst_relpath": "taken"}
    assert site.call("POST", "/folder/file/move", **move).status_code == 409
    move["dst_relpath"] = "y/moved"
    assert site.call("POST", "/folder/file/move", **move).status_code == 204
    assert site.call("POST", "/folder/file/delete", relpaths=["taken"]).status_code == 200
    gone = site.call("POST", "/folder/file/delete-async", relpaths=["y"], recursive=True)
    assert gone.status_code == 202
    told = follow(site.client, gone.json()["bgtask_id"])
    assert told[-1]["state"] == "succeeded"
    assert {path.name for path in site.at.iterdir()} == {"x"}
    assert site.used(0, 0)


def test_deleting_a_link_leaves_what_it_points_to(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").write_text("kept")
    (site.at / "link").symlink_to(target)
    site.call("POST", "/folder/file/delete", relpaths=["link"], recursive=True)
    site.call("POST", "/folder/file/delete-async", relpaths=["link"], recursive=True)
    assert (target / "kept").read_text() == "kept"


def test_a_user_gives_a_link_away(gateway: VfsGateway) -> None:
    with gateway.client("giver") as giver:
        folder = make(giver, "given")
        url = f"/v1/folders/{folder['id']}"
        assert giver.put(f"{url}/files/a/b.txt", content=b"hello").status_code == 201
        link = giver.post(f"{url}/links", json={"paths": ["a/b.txt"]}).json()
        assert httpx.get(f"{gateway.url}{link['url']}").content == b"hello"
        both = giver.post(f"{url}/links", json={"paths": ["a"], "filename": "all.zip"}).json()
        archive = httpx.get(f"{gateway.url}{both['url']}")
        assert "all.zip" in archive.headers["content-disposition"]
        problem(giver.post(f"{url}/links", json={"paths": ["none"]}), 404, "file-not-found")
        giver.delete(url)
        assert httpx.get(f"{gateway.url}{link['url']}").status_code == 409
