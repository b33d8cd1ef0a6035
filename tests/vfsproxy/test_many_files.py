"""A folder of very many files: listed in bounded memory, its first page at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.servers.vfs_gateway import VfsGateway
from tests.vfsproxy.folder_client import Documents
from tests.vfsproxy.test_people_api import follow

SOAK = os.environ.get("BACKUPGW_SOAK") == "1"
FILES = 1_000_000 if SOAK else 50_000
FOLDERS = 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VfsGateway, Documents]]:
    with VfsGateway(tmp_path_factory.mktemp("many")) as gateway, gateway.client("alice") as client:
        docs = Documents(gateway, client, "many")
        # As sessions with a mount would have put them there.
        for folder in range(FOLDERS):
            path = docs.path / ("flat" if folder < FOLDERS // 2 else f"tree/d{folder}")
            path.mkdir(parents=True, exist_ok=True)
            at = os.open(path, os.O_RDONLY)
            for number in range(FILES // FOLDERS):
                os.close(os.open(f"f{folder}-{number}", os.O_CREAT | os.O_WRONLY, dir_fd=at))
            os.close(at)
        yield gateway, docs


class Memory:
    """What the processes of a gateway hold at most, from when this is made: bytes in all."""

    def __init__(self, gateway: VfsGateway) -> None:
        self._processes = _below(gateway.process.pid)
        assert len(self._processes) > 1, "the workers are processes of their own"
        self._before = self._read("VmRSS")
        for process in self._processes:
            Path(f"/proc/{process}/clear_refs").write_text("5")  # VmHWM begins anew

    def grown(self) -> int:
        """Return by how much they have grown at their largest."""
        return self._read("VmHWM") - self._before

    def _read(self, field: str) -> int:
        found = 0
        for process in self._processes:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            line = next(line for line in lines if line.startswith(field))
            found += int(line.split()[1]) * 1024
        return found


def _below(root: int) -> list[int]:
    """Return a process and all that it started."""
    found = [root]
    for process in found:
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def test_pages_of_all(served: tuple[VfsGateway, Documents]) -> None:
    gateway, docs = served
    params: dict[str, str | int] = {"recursive": "true", "limit": 5000}
    first = docs.client.get(f"{docs.url}/entries", params={"limit": 10})  # whatever warms up
    assert first.status_code == 200
    memory = Memory(gateway)
    page = docs.client.get(f"{docs.url}/entries", params={**params, "limit": 100}).json()
    assert len(page["items"]) == 100
    found: set[str] = {item["path"] for item in page["items"]}
    told = len(page["items"])
    while page["next"] is not None:
        page = docs.client.get(
            f"{docs.url}/entries", params={**params, "after": page["next"]}
        ).json()
        found.update(item["path"] for item in page["items"])
        told += len(page["items"])
    assert told == len(found) == FILES + FOLDERS // 2 + 2
    assert memory.grown() < 64 << 20


def test_all_in_one_answer(served: tuple[VfsGateway, Documents]) -> None:
    gateway, docs = served
    memory = Memory(gateway)
    lines = 0
    params = {"recursive": "true"}
    with docs.client.stream("GET", f"{docs.url}/entries.ndjson", params=params) as answer:
        for _ in answer.iter_lines():
            lines += 1
    assert lines == FILES + FOLDERS // 2 + 2
    assert memory.grown() < 48 << 20


def test_what_it_holds_is_known_at_once(served: tuple[VfsGateway, Documents]) -> None:
    """Once counted, in bounded memory; and told without looking at a single file again."""
    gateway, docs = served
    with gateway.manager() as manager:
        memory = Memory(gateway)
        task = manager.post("/v1/volumes/main/scan").json()["task"]
        assert follow(manager, task)[-1]["state"] == "succeeded"
        assert memory.grown() < 64 << 20
        which = {"volume": "main", "vfid": f"user:alice/{docs.id}"}
        told = manager.request("GET", "/folder/usage", json=which, timeout=5)
        assert told.json() == {"file_count": FILES, "used_bytes": 0}
        assert docs.used() == (0, FILES)


def test_a_page_of_another_gateway(served: tuple[VfsGateway, Documents]) -> None:
    """A cursor is good after a restart: the folder is gone through again up to it."""
    gateway, docs = served
    url = f"{docs.url}/entries"
    params: dict[str, str | int] = {"path": "flat", "limit": 10_000}
    page = docs.client.get(url, params=params).json()
    names = [item["name"] for item in page["items"]]
    gateway.stop()
    gateway.start()
    while page["next"] is not None:
        try:
            page = docs.client.get(url, params={**params, "after": page["next"]}).json()
        except httpx.TransportError:
            continue  # the connection was of the gateway before
        names += [item["name"] for item in page["items"]]
    assert len(names) == len(set(names)) == FILES // 2
