"""Files over HTTP: bytes in and out, listings, changes, and names that nobody should give."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import threading
import unicodedata
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from tests.runtime.http_process import Answer, Wire
from tests.servers.vfs_gateway import VfsGateway
from tests.vfsproxy.folder_client import Documents

MIB = 1 << 20


@pytest.fixture
def alice(gateway: VfsGateway) -> Iterator[httpx.Client]:
    with gateway.client("alice") as client:
        yield client


@pytest.fixture
def docs(gateway: VfsGateway, alice: httpx.Client, request: pytest.FixtureRequest) -> Documents:
    return Documents(gateway, alice, f"d{abs(hash(request.node.nodeid)) % 10**9}")


class TestDownload:
    def test_whole_and_in_ranges(self, docs: Documents) -> None:
        data = os.urandom(2 * MIB + 5)
        docs.put("a.bin", data)
        whole = docs.get("a.bin")
        assert (whole.status_code, whole.content) == (200, data)
        assert whole.headers["accept-ranges"] == "bytes"
        assert whole.headers["x-content-type-options"] == "nosniff"
        for text, part in (
            ("bytes=0-0", data[:1]),
            ("bytes=1000-1999", data[1000:2000]),
            ("bytes=1000-", data[1000:]),
            ("bytes=-7", data[-7:]),
            (f"bytes=5-{10**18}", data[5:]),
        ):
            answer = docs.get("a.bin", Range=text)
            assert (answer.status_code, answer.content) == (206, part)
            assert answer.headers["content-range"].endswith(f"/{len(data)}")
        for text in (f"bytes={len(data)}-", "bytes=-0", "bytes=9-3", "lines=1-2"):
            answer = docs.get("a.bin", Range=text)
            assert answer.status_code == 416
            assert answer.headers["content-type"] == "application/problem+json"
        # Several at once: the whole, as RFC 9110 allows.
        assert docs.get("a.bin", Range="bytes=0-1,4-5").content == data

    def test_head_tells_what_get_would(self, docs: Documents) -> None:
        docs.put("a.txt", b"12345")
        head = docs.client.head(f"{docs.url}/files/a.txt")
        got = docs.get("a.txt")
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "etag", "last-modified", "content-type"):
            assert head.headers[name] == got.headers[name]

    def test_conditions(self, docs: Documents) -> None:
        tag = docs.put("a.txt", b"first").headers["etag"]
        got = docs.get("a.txt")
        assert got.headers["etag"] == tag
        assert docs.get("a.txt", If_None_Match=tag).status_code == 304
        assert docs.get("a.txt", If_None_Match=f'"x", W/{tag}').status_code == 304
        assert docs.get("a.txt", If_None_Match="*").status_code == 304
        assert docs.get("a.txt", If_None_Match='"x"').status_code == 200
        assert docs.get("a.txt", If_Match=tag).status_code == 200
        assert docs.get("a.txt", If_Match='"x"').status_code == 412
        date = got.headers["last-modified"]
        assert docs.get("a.txt", If_Modified_Since=date).status_code == 304
        assert (
            docs.get("a.txt", If_Unmodified_Since="Thu, 01 Jan 1998 00:00:00 GMT").status_code
            == 412
        )
        assert docs.get("a.txt", Range="bytes=1-2", If_Range=tag).content == b"ir"
        docs.put("a.txt", b"other", status=200, overwrite="true")
        assert docs.get("a.txt", If_None_Match=tag).status_code == 200
        # Whoever has the first half of the old file gets the whole of the new one.
        again = docs.get("a.txt", Range="bytes=1-2", If_Range=tag)
        assert (again.status_code, again.content) == (200, b"other")

    @pytest.mark.parametrize(
        "name", ['a "b".txt', "grün.txt", "文件.txt", "100%.txt", "a;b.txt", "a\\b.txt", "x" * 255]
    )
    def test_any_name_is_saved_as_itself(self, docs: Documents, name: str) -> None:
        docs.put(f"dir/{name}", b"1")
        told = docs.get(f"dir/{name}").headers["content-disposition"]
        if name == "x" * 255:
            assert told == f'attachment; filename="{name}"'
        else:
            assert told.endswith(f"filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}")

    def test_an_empty_file(self, docs: Documents) -> None:
        docs.put("empty", b"")
        got = docs.get("empty")
        assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "0")

    def test_a_folder_is_no_file(self, docs: Documents) -> None:
        docs.put("dir/a", b"1")
        assert docs.get("dir").status_code == 409
        assert docs.get("nothing").status_code == 404
        assert docs.get("dir/a/b").status_code == 404


class TestUpload:
    def test_nothing_is_replaced_unasked(self, docs: Documents) -> None:
        docs.put("a", b"old")
        refused = docs.put("a", b"new", status=409).json()
        assert refused["error_code"] == "file-exists"
        docs.put("a", b"newer", status=200, overwrite="true")
        assert docs.get("a").content == b"newer"
        docs.put("a/b", b"below a file", status=409)
        docs.put("dir/x", b"1")
        docs.put("dir", b"over a folder", status=409, overwrite="true")
        assert docs.used() == (6, 2)

    def test_the_bytes_may_have_to_be_these(self, docs: Documents) -> None:
        digest = b64encode(hashlib.sha256(b"good").digest()).decode()
        url, told = f"{docs.url}/files/a", {"Content-Digest": f"sha-256=:{digest}:"}
        assert docs.client.put(url, content=b"evil", headers=told).status_code == 400
        assert docs.client.put(url, content=b"good", headers=told).status_code == 201

    def test_only_over_what_was_seen(self, docs: Documents) -> None:
        tag = docs.put("a", b"one").headers["etag"]
        url = f"{docs.url}/files/a?overwrite=true"
        assert docs.client.put(url, content=b"2", headers={"If-None-Match": "*"}).status_code == 412
        assert docs.client.put(url, content=b"two", headers={"If-Match": tag}).status_code == 200
        assert docs.client.put(url, content=b"six", headers={"If-Match": tag}).status_code == 412
        assert docs.get("a").content == b"two"

    def test_what_breaks_off_is_nothing(self, gateway: VfsGateway, docs: Documents) -> None:
        key = docs.client.headers["authorization"]
        with socket.create_connection(("127.0.0.1", gateway.client_port)) as wire:
            wire.sendall(
                f"PUT {docs.url}/files/half HTTP/1.1\r\nHost: t\r\nAuthorization: {key}\r\n"
                f"Content-Length: {4 * MIB}\r\n\r\n".encode()
                + bytes(3 * MIB)
            )
        assert docs.get("half").status_code == 404
        docs.put("half", b"whole")

    def test_two_at_once_one_wins(self, docs: Documents) -> None:
        answers: list[int] = []

        def send(number: int) -> None:
            url = f"{docs.url}/files/one"
            answers.append(docs.client.put(url, content=bytes([number]) * 300_000).status_code)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [201] + [409] * 7
        assert len(set(docs.get("one").content)) == 1
        assert docs.used() == (300_000, 1)


def as_written(gateway: VfsGateway, docs: Documents, method: str, target: str) -> Answer:
    """Send a request target that a library would put right."""
    with Wire(socket.create_connection(("127.0.0.1", gateway.client_port), 60)) as wire:
        key = f"Authorization: {docs.client.headers['authorization']}\r\n"
        return wire.request(method, f"{docs.url}/{target}", key, b"1" if method == "PUT" else b"")


HOSTILE = [
    "%2e%2e/x",
    "%2e%2e%2fx",
    "a/%2e%2e/%2e%2e/x",
    "..%5cx",
    "%2fetc%2fpasswd",
    "a%2f%2fb",
    "a%00b",
    "a%0ab",
    "a%1bb",
    "a%c2%85b",
    "a%7fb",
    "%c0%ae%c0%ae/x",
    "%ff",
    "a%ed%a0%80b",
    ".backupgw-tmp-1",
    "a/.backupgw-staging/x",
    "x" * 256,
    "%e2%80%a8",
    "%",
    "%zz",
    "a/%2e/b",
    "/".join(["deep" * 50] * 30),
]


class TestNames:
    @pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
    def test_bad_ones_are_refused_everywhere(
        self, gateway: VfsGateway, docs: Documents, raw: str
    ) -> None:
        before = sorted(gateway.volume.rglob("*"))
        for method, target in (
            ("PUT", f"files/{raw}"),
            ("GET", f"files/{raw}"),
            ("DELETE", f"files/{raw}?recursive=true"),
            ("GET", f"stat?path={raw}"),
            ("GET", f"entries?path={raw}"),
            ("GET", f"archive?path={raw}"),
            ("GET", f"checksum?path={raw}"),
        ):
            answer = as_written(gateway, docs, method, target)
            assert answer.status == 400, (method, target, answer.body)
            assert answer.headers["content-type"] == "application/problem+json"
        assert sorted(gateway.volume.rglob("*")) == before
        assert docs.used() == (0, 0)

    @pytest.mark.parametrize("name", ["../x", "/x", "a//b", "..\\x", "a\nb", "", "a/.."])
    def test_bad_ones_in_bodies(self, docs: Documents, name: str) -> None:
        docs.put("a", b"1")
        assert docs.post("mkdir", path=name).status_code == 400
        assert docs.post("move", source=name, target="b").status_code == 400
        assert docs.post("move", source="a", target=name).status_code == 400
        assert docs.post("copy", source="a", target=name).status_code == 400
        assert docs.post("delete", paths=[name]).status_code == 400
        assert docs.names() == ["a"]

    def test_a_name_is_decoded_once(self, docs: Documents) -> None:
        docs.put("%2e%2e", b"1")
        assert docs.names() == ["%2e%2e"]
        assert docs.get("%2e%2e").content == b"1"

    def test_names_are_composed(self, docs: Documents) -> None:
        composed, decomposed = "grün.txt", unicodedata.normalize("NFD", "grün.txt")
        docs.put(decomposed, b"1")
        assert docs.names() == [composed]
        assert docs.get(composed).content == docs.get(decomposed).content == b"1"
        docs.put(composed, b"2", status=409)
        # What another program put there under the other name is found by it.
        (docs.path / decomposed).write_bytes(b"old")
        assert docs.get(decomposed).content == b"old"
        assert docs.get(composed).content == b"1"

    def test_links_lead_nowhere(self, docs: Documents, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "key").write_bytes(b"secret")
        docs.put("real", b"1")
        (docs.path / "file").symlink_to(secret / "key")
        (docs.path / "dir").symlink_to(secret)
        for path in ("file", "dir", "dir/key"):
            assert docs.get(path).status_code in (403, 404)
            assert docs.client.delete(f"{docs.url}/files/{path}").status_code in (403, 404)
            assert docs.put_status(path) in (403, 409)
        assert docs.names() == ["real"]
        archive = docs.client.get(f"{docs.url}/archive")
        assert zipfile.ZipFile(io.BytesIO(archive.content)).namelist() == ["real"]
        assert docs.post("copy", source="dir", target="copied").status_code in (403, 404)
        assert docs.post("delete", paths=["dir"], recursive=True).status_code in (403, 404)
        assert (secret / "key").read_bytes() == b"secret"
        assert sorted(os.listdir(secret)) == ["key"]


class TestListing:
    def test_pages_tell_everything_once(self, docs: Documents) -> None:
        for number in range(25):
            docs.put(f"{number % 5}/f{number}", b"x")
        expected = sorted({f"{n % 5}" for n in range(25)} | {f"{n % 5}/f{n}" for n in range(25)})
        for limit in (1, 3, 7, 30, 1000):
            assert docs.names(limit=limit) == expected
        assert docs.names("2", limit=2) == [f"2/f{n}" for n in (12, 17, 2, 22, 7)]
        assert docs.names(recursive=False) == ["0", "1", "2", "3", "4"]

    def test_what_stays_is_told_while_others_come_and_go(self, docs: Documents) -> None:
        for number in range(40):
            docs.put(f"stay{number}", b"x")
        found: list[str] = []
        after: dict[str, str] = {}
        for round_ in range(100):
            page = docs.client.get(f"{docs.url}/entries", params={"limit": 3, **after}).json()
            found += [item["name"] for item in page["items"]]
            docs.put(f"new{round_}", b"x")
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        stayed = [name for name in found if name.startswith("stay")]
        assert sorted(stayed) == sorted({f"stay{number}" for number in range(40)})

    def test_a_cursor_is_of_its_listing(self, docs: Documents) -> None:
        for name in ("a", "b", "d/c"):
            docs.put(name, b"x")
        cursor = docs.client.get(f"{docs.url}/entries", params={"limit": 1}).json()["next"]
        for params in (
            {"after": cursor, "path": "d"},
            {"after": cursor, "recursive": "true"},
            {"after": "x"},
            {"after": "AAAA"},
            {"after": b64encode(b'["x","",false,1]').decode()},
        ):
            assert docs.client.get(f"{docs.url}/entries", params=params).status_code == 400

    def test_in_one_answer(self, docs: Documents) -> None:
        for number in range(30):
            docs.put(f"d{number % 3}/f{number}", bytes(number))
        answer = docs.client.get(f"{docs.url}/entries.ndjson", params={"recursive": "true"})
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert sorted(line["path"] for line in lines) == docs.names()
        assert sum(line["size"] for line in lines) == docs.used()[0]

    def test_stat_and_checksum(self, docs: Documents) -> None:
        docs.put("d/a.txt", b"12345")
        told = docs.client.get(f"{docs.url}/stat", params={"path": "d/a.txt"}).json()
        assert (told["type"], told["size"], told["name"]) == ("file", 5, "a.txt")
        assert told["etag"] == docs.get("d/a.txt").headers["etag"]
        for path in ("d", "d/", ""):
            told = docs.client.get(f"{docs.url}/stat", params={"path": path}).json()
            assert told["type"] == "folder"
        for algorithm in ("md5", "sha256", "blake2b"):
            params = {"path": "d/a.txt", "algorithm": algorithm}
            digest = docs.client.get(f"{docs.url}/checksum", params=params).json()["digest"]
            assert digest == hashlib.new(algorithm, b"12345").hexdigest()
        for params in ({"path": "d/a.txt", "algorithm": "crc"}, {"path": "a\nb"}):
            assert docs.client.get(f"{docs.url}/checksum", params=params).status_code == 400
        assert docs.client.get(f"{docs.url}/checksum", params={"path": "d"}).status_code == 409


class TestChanges:
    def test_folders_within(self, docs: Documents) -> None:
        assert docs.post("mkdir", path="a/b").status_code == 404
        assert docs.post("mkdir", path="a/b", parents=True).status_code == 201
        assert docs.post("mkdir", path="a/b").status_code == 409
        assert docs.post("mkdir", path="a/b", exist_ok=True).status_code == 200
        docs.put("file", b"1")
        assert docs.post("mkdir", path="file", exist_ok=True).status_code == 409
        assert docs.post("mkdir", path="file/x", parents=True).status_code == 409
        assert docs.names() == ["a", "a/b", "file"]

    def test_files_are_moved_over_nothing_unasked(self, docs: Documents) -> None:
        docs.put("a", b"a")
        docs.put("b", b"bb")
        assert docs.post("move", source="a", target="b").status_code == 409
        assert docs.get("b").content == b"bb"
        assert docs.post("move", source="a", target="b", overwrite=True).json() == {"done": 1}
        assert docs.get("b").content == b"a"
        assert docs.used() == (1, 1)
        assert docs.post("move", source="a", target="c").status_code == 404
        assert docs.post("move", source="b", target="b").status_code == 200
        assert docs.post("move", source="b", target="new/dir/c").status_code == 200
        assert docs.names() == ["new", "new/dir", "new/dir/c"]

    def test_trees_are_moved_and_copied(self, docs: Documents) -> None:
        for name in ("t/a", "t/d/b", "t/d/e/c"):
            docs.put(name, name.encode())
        docs.post("mkdir", path="t/empty")
        tree = ["", "/a", "/d", "/d/b", "/d/e", "/d/e/c", "/empty"]
        assert docs.post("copy", source="t", target="copied").status_code == 200
        assert docs.post("move", source="t", target="x/moved").status_code == 200
        expected = sorted(
            [f"copied{name}" for name in tree] + [f"x/moved{name}" for name in tree] + ["x"]
        )
        assert docs.names() == expected
        assert docs.get("x/moved/d/e/c").content == docs.get("copied/d/e/c").content == b"t/d/e/c"
        assert docs.used() == (2 * sum(map(len, ("t/a", "t/d/b", "t/d/e/c"))), 6)
        for target in ("copied/inside", "copied/d/inside", "copied"):
            for verb in ("move", "copy"):
                answer = docs.post(verb, source="copied", target=target)
                assert answer.status_code == (200 if (verb, target) == ("move", "copied") else 409)
        # Never one folder into another that is there.
        assert docs.post("move", source="copied", target="x", overwrite=True).status_code == 409

    def test_between_folders_both_accounts_follow(
        self, gateway: VfsGateway, alice: httpx.Client, docs: Documents
    ) -> None:
        small = Documents(gateway, alice, f"small{docs.id[:8]}", limits={"bytes": 1000})
        docs.put("fits", bytes(600))
        docs.put("large", bytes(401))
        docs.put("tree/a", bytes(10))
        docs.put("tree/b/c", bytes(20))
        to = {"target_folder": small.id}
        assert docs.post("move", source="fits", target="f", **to).status_code == 200
        assert (docs.used(), small.used()) == ((431, 3), (600, 1))
        for verb in ("move", "copy"):
            refused = docs.post(verb, source="large", target="l", **to)
            assert (refused.status_code, refused.json()["error_code"]) == (507, "quota-exceeded")
        assert docs.post("copy", source="tree", target="t", **to).status_code == 200
        assert (docs.used(), small.used()) == ((431, 3), (630, 3))
        assert docs.post("move", source="tree", target="t", **to).status_code == 409
        assert docs.post("move", source="tree", target="t2", **to).status_code == 200
        assert (docs.used(), small.used()) == ((401, 1), (660, 5))
        assert docs.names() == ["large"]
        assert small.get("t2/b/c").content == bytes(20)

    def test_only_what_is_asked_is_deleted(self, docs: Documents) -> None:
        for name in ("a", "d/b", "d/e/c", "dd/x"):
            docs.put(name, b"1")
        url = f"{docs.url}/files/"
        refused = docs.client.delete(f"{url}d")
        assert (refused.status_code, refused.json()["error_code"]) == (409, "folder-not-empty")
        done = docs.client.delete(f"{url}d", params={"recursive": "true"}).json()
        assert done == {"done": 4}
        assert docs.names() == ["a", "dd", "dd/x"]
        assert docs.client.delete(f"{url}nothing").status_code == 404
        assert docs.post("delete", paths=["a", "nothing"]).status_code == 404
        assert docs.post("delete", paths=["a", "dd"], recursive=True).json() == {"done": 3}
        assert (docs.names(), docs.used()) == ([], (0, 0))

    def test_who_may_only_read_changes_nothing(self, gateway: VfsGateway, docs: Documents) -> None:
        docs.put("a", b"1")
        with gateway.client("alice", allow="read") as reading:
            only = Documents.__new__(Documents)
            only.client, only.url, only.id = reading, docs.url, docs.id
            assert only.get("a").content == b"1"
            only.put("b", b"1", status=403)
            assert only.client.delete(f"{docs.url}/files/a").status_code == 403
            for verb, body in (
                ("mkdir", {"path": "x"}),
                ("move", {"source": "a", "target": "b"}),
                ("copy", {"source": "a", "target": "b"}),
                ("delete", {"paths": ["a"]}),
            ):
                assert only.post(verb, **body).status_code == 403
            told = {"Tus-Resumable": "1.0.0", "Upload-Length": "1"}
            told["Upload-Metadata"] = f"filename {b64encode(b'u').decode()}"
            assert only.client.post(f"{docs.url}/uploads", headers=told).status_code == 403
        assert docs.names() == ["a"]


class TestArchives:
    @pytest.fixture
    def tree(self, docs: Documents) -> dict[str, bytes]:
        files = {
            "a.txt": b"a" * 1000,
            "d/grün.bin": os.urandom(300_000),
            "d/" + "long" * 50 + "/x": b"x",
            "empty": b"",
        }
        for name, data in files.items():
            docs.put(name, data)
        docs.post("mkdir", path="hollow")
        return files

    def test_zip(self, docs: Documents, tree: dict[str, bytes]) -> None:
        answer = docs.client.get(f"{docs.url}/archive")
        assert answer.headers["content-type"] == "application/zip"
        assert ".zip" in answer.headers["content-disposition"]
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            files = {i.filename: archive.read(i) for i in archive.infolist() if not i.is_dir()}
            assert "hollow/" in archive.namelist()
        assert files == tree

    def test_tar(self, docs: Documents, tree: dict[str, bytes]) -> None:
        answer = docs.client.get(f"{docs.url}/archive", params={"format": "tar"})
        assert answer.headers["content-type"] == "application/x-tar"
        assert len(answer.content) % 10_240 == 0
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
            files = {
                member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
                for member in archive
                if member.isfile()
            }
            assert archive.getmember("hollow").isdir()
        assert files == tree

    def test_some(self, docs: Documents, tree: dict[str, bytes]) -> None:
        docs.put("other/a.txt", b"2")
        params = {"path": ["a.txt", "d", "other/a.txt"], "filename": "my.zip"}
        answer = docs.client.get(f"{docs.url}/archive", params=params)
        assert answer.headers["content-disposition"] == 'attachment; filename="my.zip"'
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            files = {name for name in archive.namelist() if not name.endswith("/")}
        assert files == {"a.txt", "a.txt (2)", *(name for name in tree if name.startswith("d/"))}
        params = {"path": ["a.txt", "nothing"]}
        assert docs.client.get(f"{docs.url}/archive", params=params).status_code == 404
