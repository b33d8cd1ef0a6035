"""Backend.AI's own client, its `vfolder` commands as users type them, against a gateway.

The Manager between them is a small one of ours (`tests/servers/backendai_manager.py`).
"""

from __future__ import annotations

import io
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.servers import peers
from tests.servers.backendai_manager import HOST, BackendAiManager
from tests.servers.child import Child
from tests.servers.faulty_proxy import FaultyProxy, breaking
from tests.servers.vfs_gateway import VfsGateway
from tusclient.client import TusClient

# It and what it needs are 300 MB and half a minute to install.
pytestmark = [pytest.mark.soak, pytest.mark.peers(peers.BACKENDAI)]

MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}


class Client:
    """A user at a terminal, in a folder of their own."""

    def __init__(self, folder: Path, manager: BackendAiManager) -> None:
        self.folder = folder
        self.manager = manager

    def start(self, *words: str) -> Child[str]:
        return Child(
            [peers.get(peers.BACKENDAI).path, "vfolder", *words],
            cwd=self.folder,
            env={
                **os.environ,
                **self.manager.environment,
                "HOME": str(self.folder),
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, status: int = 0, typed: str = "") -> str:
        with self.start(*words) as process:
            told, _ = process.communicate(typed, timeout=120)
        assert process.returncode == status, told
        return told

    def file(self, name: str, size: int) -> bytes:
        data = os.urandom(size)
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return data


@pytest.fixture
def manager(gateway: VfsGateway) -> Iterator[BackendAiManager]:
    with BackendAiManager(gateway) as running:
        yield running


@pytest.fixture
def client(manager: BackendAiManager, tmp_path: Path) -> Client:
    folder = tmp_path / "home"
    folder.mkdir()
    found = Client(folder, manager)
    assert '"docs" is created' in found.run("create", "docs", HOST)
    return found


def stored(gateway: VfsGateway, manager: BackendAiManager) -> Path:
    """Where the folder lies on the disk."""
    scope, _, folder = manager.reference("docs").partition("/")
    return gateway.volume / scope / folder[:2] / folder[2:4] / folder[4:]


def test_up_and_down_again(gateway: VfsGateway, manager: BackendAiManager, client: Client) -> None:
    """Files larger than a chunk, empty ones, folders, names that are not ASCII."""
    wanted = {
        "large.bin": client.file("large.bin", 9 * MIB + 17),
        "empty": client.file("empty", 0),
        "ünïcode ☃.txt": client.file("ünïcode ☃.txt", 3),
        "tree/a": client.file("tree/a", 5),
        "tree/nothing": client.file("tree/nothing", 0),
    }
    names = ["large.bin", "empty", "ünïcode ☃.txt"]
    client.run("upload", "--chunk-size", "4m", "docs", *names)
    client.run("upload", "--recursive", "--base-dir", str(client.folder), "docs", "tree")
    lying = stored(gateway, manager)
    found = {
        str(path.relative_to(lying)): path.read_bytes()
        for path in lying.rglob("*")
        if path.is_file()
    }
    assert found == wanted
    told = client.run("info", "docs")
    assert f"Number of files: {len(wanted)}" in told
    assert "large.bin" in client.run("ls", "docs")

    client.run("download", "docs", "no such file", status=1)
    back = client.folder / "back"
    (back / "tree").mkdir(parents=True)
    client.run("download", "--base-dir", str(back), "docs", *wanted)
    for name, data in wanted.items():
        assert (back / name).read_bytes() == data, name


def test_what_is_done_to_files(
    gateway: VfsGateway, manager: BackendAiManager, client: Client
) -> None:
    client.file("a", 10)
    client.run("upload", "docs", "a")
    client.run("mkdir", "docs", "sub")
    client.run("rename-file", "docs", "a", "b")
    client.run("mv", "docs", "b", "sub/c")
    lying = stored(gateway, manager)
    assert [path.name for path in lying.rglob("*")] == ["sub", "c"]
    (client.folder / "sub").mkdir()
    client.file("sub/c", 20)
    told = client.run("upload", "docs", "sub/c", status=1)
    assert "409" in told, "what is there is not replaced unasked"
    assert (lying / "sub/c").stat().st_size == 10
    client.run("rm", "--recursive", "docs", "sub", typed="y\n")
    assert list(lying.iterdir()) == []
    client.run("delete", "docs")
    client.run("delete-trash", "docs")
    deadline = time.monotonic() + 30
    while lying.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not lying.exists()


def test_an_upload_that_is_cut_off_is_carried_on(
    gateway: VfsGateway, manager: BackendAiManager, client: Client
) -> None:
    """The connection breaks in the middle of a chunk. What had come is there, and goes on from
    there by any client that has its token; this one waits for five minutes, and then cannot read
    the offset (aiotusclient 0.1.4), so it is ended, and begins anew, which works as well."""
    data = client.file("large.bin", 24 * MIB)
    lying = stored(gateway, manager)
    with FaultyProxy(("127.0.0.1", gateway.client_port), break_after=lambda: 5 * MIB) as breaks:
        manager.storage_url = f"http://127.0.0.1:{breaks.port}"
        with client.start("upload", "--chunk-size", "16m", "docs", "large.bin") as process:
            assert process.stdout is not None
            assert any("Retries" in line for line in process.stdout)
            process.kill()
    url = f"{gateway.url}/upload?token={manager.tokens[-1][1]}"
    offset = int(httpx.head(url, headers=TUS).headers["upload-offset"])
    assert 4 * MIB < offset <= 5 * MIB
    assert not (lying / "large.bin").exists()
    uploader = TusClient(gateway.url).uploader(
        file_stream=io.BytesIO(data), url=url, chunk_size=4 * MIB
    )
    assert uploader.offset == offset
    uploader.upload()
    assert (lying / "large.bin").read_bytes() == data

    manager.storage_url = gateway.url
    (lying / "large.bin").unlink()
    client.run("upload", "docs", "large.bin")
    assert (lying / "large.bin").read_bytes() == data


def test_a_download_over_connections_that_break(
    gateway: VfsGateway, manager: BackendAiManager, client: Client
) -> None:
    data = client.file("large.bin", 12 * MIB)
    client.run("upload", "docs", "large.bin")
    back = client.folder / "back"
    back.mkdir()
    with FaultyProxy(
        ("127.0.0.1", gateway.client_port), break_after=breaking(0.6, 4 * MIB, seed=11)
    ) as proxy:
        manager.storage_url = f"http://127.0.0.1:{proxy.port}"
        client.run("download", "--base-dir", str(back), "--max-retries", "60", "docs", "large.bin")
    assert (back / "large.bin").read_bytes() == data


def test_what_does_not_fit_is_told(
    gateway: VfsGateway, manager: BackendAiManager, client: Client
) -> None:
    with gateway.manager() as storage:
        scope = manager.reference("docs").partition("/")[0]
        body = {"volume": "main", "qsid": scope, "options": {"limit_bytes": MIB}}
        assert storage.patch("/quota-scope", json=body).status_code == 204
    client.file("large.bin", 2 * MIB)
    told = client.run("upload", "docs", "large.bin", status=1)
    assert "507" in told or "quota" in told.lower()
    client.file("small", 1000)
    client.run("upload", "docs", "small")
