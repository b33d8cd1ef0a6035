"""Uploads by the clients that people have: tuspy, aiotusclient, tus-js-client and curl."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiotusclient.client import TusClient as AioTusClient
from tests.servers import tus_js
from tests.servers.faulty_proxy import FaultyProxy, breaking
from tests.servers.vfs_gateway import VfsGateway
from tests.vfsproxy.file_process import TUS, metadata
from tests.vfsproxy.folder_client import Documents
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

MIB = 1 << 20
SIZE = 5 * MIB + 4321


@pytest.fixture
def alice(gateway: VfsGateway) -> Iterator[httpx.Client]:
    with gateway.client("alice") as client:
        yield client


@pytest.fixture
def docs(gateway: VfsGateway, alice: httpx.Client, request: pytest.FixtureRequest) -> Documents:
    return Documents(gateway, alice, f"c{abs(hash(request.node.nodeid)) % 10**9}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def key_of(docs: Documents) -> dict[str, str]:
    return {"Authorization": docs.client.headers["authorization"]}


def endpoint(gateway: VfsGateway, docs: Documents, port: int | None = None) -> str:
    return f"http://127.0.0.1:{port or gateway.client_port}{docs.url}/uploads"


def check(docs: Documents, file: Path, name: str = "data.bin") -> None:
    assert docs.get(name).content == file.read_bytes()
    assert docs.used() == (file.stat().st_size, 1)


class TestTuspy:
    @pytest.mark.parametrize("checksum", [False, True])
    def test_in_chunks(
        self, gateway: VfsGateway, docs: Documents, file: Path, checksum: bool
    ) -> None:
        client = TusClient(endpoint(gateway, docs), headers=key_of(docs))
        with file.open("rb") as stream:  # of a path it opens a file for each chunk, and closes none
            client.uploader(
                file_stream=stream,
                chunk_size=MIB,
                metadata={"filename": "data.bin"},
                upload_checksum=checksum,
            ).upload()
        check(docs, file)

    def test_interrupted_and_resumed(
        self, gateway: VfsGateway, docs: Documents, file: Path
    ) -> None:
        client = TusClient(endpoint(gateway, docs), headers=key_of(docs))
        with file.open("rb") as stream:
            first = client.uploader(
                file_stream=stream, chunk_size=MIB, metadata={"filename": "data.bin"}
            )
            first.upload(stop_at=2 * MIB)
        with file.open("rb") as stream:
            second = client.uploader(file_stream=stream, url=first.url, chunk_size=MIB)
            assert second.offset == 2 * MIB
            second.upload()
        check(docs, file)

    def test_an_empty_file(self, gateway: VfsGateway, docs: Documents) -> None:
        client = TusClient(endpoint(gateway, docs), headers=key_of(docs))
        client.uploader(file_stream=io.BytesIO(), metadata={"filename": "empty"}).upload()
        assert docs.get("empty").content == b""
        assert docs.used() == (0, 1)

    def test_over_connections_that_break(
        self, gateway: VfsGateway, docs: Documents, file: Path
    ) -> None:
        """Each attempt gets a part of the way, and none of it is sent twice but what was lost."""
        with FaultyProxy(
            ("127.0.0.1", gateway.client_port), break_after=breaking(0.5, 2 * MIB, seed=7)
        ) as proxy:
            url = endpoint(gateway, docs, proxy.port)
            client = TusClient(url, headers=key_of(docs))
            urls: list[str] = []
            for _ in range(60):
                with (
                    contextlib.suppress(TusCommunicationError, ConnectionError),
                    file.open("rb") as stream,
                ):
                    uploader = client.uploader(
                        file_stream=stream,
                        url=urls[0] if urls else None,
                        metadata={"filename": "data.bin"},
                    )
                    if not urls:
                        urls.append(uploader.create_url())
                        uploader.set_url(urls[0])
                    uploader.upload()
                    break
            else:
                pytest.fail("it never got through")
        check(docs, file)


def test_aiotusclient(gateway: VfsGateway, docs: Documents, file: Path) -> None:
    """It does not create uploads: Backend.AI's manager does, and tells it the URL."""
    told = {**TUS, "Upload-Length": str(SIZE), "Upload-Metadata": metadata(filename="data.bin")}
    url = docs.client.post(f"{docs.url}/uploads", headers=told).headers["location"]

    async def send() -> None:
        with file.open("rb") as stream:
            uploader = AioTusClient(key_of(docs)).async_uploader(
                file_stream=stream, url=f"{gateway.url}{url}", chunk_size=MIB, upload_checksum=True
            )
            await uploader.upload()

    asyncio.run(send())
    check(docs, file)


@pytest.mark.peers("tus-js-client")
class TestTusJs:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"chunk": MIB},
            {"override": True, "chunk": 2 * MIB},
            {"during": True, "chunk": 2 * MIB},
            {"deferred": True, "chunk": MIB},
        ],
        ids=["whole", "chunks", "post", "with-creation", "deferred"],
    )
    def test_ways_to_send(
        self, gateway: VfsGateway, docs: Documents, file: Path, options: dict[str, object]
    ) -> None:
        told = tus_js.upload(file, endpoint(gateway, docs), key_of(docs), **options)
        assert told["done"], told
        check(docs, file)

    def test_in_parallel(self, gateway: VfsGateway, docs: Documents, file: Path) -> None:
        told = tus_js.upload(file, endpoint(gateway, docs), key_of(docs), parallel=4)
        assert told["done"], told
        assert told["statuses"].count("POST 201") == 5
        check(docs, file)

    def test_stopped_and_resumed(self, gateway: VfsGateway, docs: Documents, file: Path) -> None:
        first = tus_js.upload(file, endpoint(gateway, docs), key_of(docs), chunk=MIB, stop=3 * MIB)
        assert not first["done"]
        second = tus_js.upload(
            file, endpoint(gateway, docs), key_of(docs), chunk=MIB, url=first["url"]
        )
        assert second["done"], second
        assert second["statuses"][0] == "HEAD 200"
        assert second["statuses"].count("PATCH 204") < 6
        check(docs, file)

    def test_an_empty_file(self, gateway: VfsGateway, docs: Documents, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.touch()
        assert tus_js.upload(empty, endpoint(gateway, docs), key_of(docs))["done"]
        assert docs.used() == (0, 1)

    def test_over_connections_that_break(
        self, gateway: VfsGateway, docs: Documents, file: Path
    ) -> None:
        with FaultyProxy(
            ("127.0.0.1", gateway.client_port), break_after=breaking(0.3, 2 * MIB, seed=3)
        ) as proxy:
            told = tus_js.upload(
                file,
                endpoint(gateway, docs, proxy.port),
                key_of(docs),
                chunk=MIB,
                retries=[10] * 60,
            )
        assert told["done"], told
        check(docs, file)

    def test_what_is_refused_is_told(
        self, gateway: VfsGateway, docs: Documents, file: Path
    ) -> None:
        docs.put("data.bin", b"there")
        told = tus_js.upload(file, endpoint(gateway, docs), key_of(docs), retries=[10])
        assert not told["done"]
        assert "409" in told["error"]
        assert docs.get("data.bin").content == b"there"


class TestCurl:
    @staticmethod
    def run(docs: Documents, *arguments: str) -> str:
        key = docs.client.headers["authorization"]
        command = [
            "curl",
            "--silent",
            "--show-error",
            "--fail-with-body",
            "-H",
            f"Authorization: {key}",
        ]
        return subprocess.run(
            [*command, *arguments], check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def test_upload_and_download(
        self, gateway: VfsGateway, docs: Documents, file: Path, tmp_path: Path
    ) -> None:
        url = f"{gateway.url}{docs.url}/files/data.bin"
        self.run(docs, "--upload-file", str(file), url)
        check(docs, file)
        half, saved = tmp_path / "half", tmp_path / "saved"
        half.write_bytes(file.read_bytes()[: SIZE // 2])
        self.run(docs, "--continue-at", "-", "--output", str(half), url)
        assert half.read_bytes() == file.read_bytes()
        saved.mkdir()
        self.run(docs, "--output-dir", str(saved), "--remote-name", "--remote-header-name", url)
        assert (saved / "data.bin").read_bytes() == file.read_bytes()

    def test_tus_by_hand(self, gateway: VfsGateway, docs: Documents, file: Path) -> None:
        headers = self.run(
            docs,
            "--dump-header",
            "-",
            "-X",
            "POST",
            "-H",
            "Tus-Resumable: 1.0.0",
            "-H",
            f"Upload-Length: {SIZE}",
            "-H",
            f"Upload-Metadata: {metadata(filename='data.bin')}",
            endpoint(gateway, docs),
        )
        location = next(
            line.split(": ")[1] for line in headers.splitlines() if line.startswith("location: ")
        )
        patch = ["-X", "PATCH", "-H", "Tus-Resumable: 1.0.0", "-H", "Upload-Offset: 0"]
        patch += ["-H", "Content-Type: application/offset+octet-stream"]
        self.run(docs, *patch, "--data-binary", f"@{file}", f"{gateway.url}{location}")
        check(docs, file)
