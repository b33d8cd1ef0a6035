"""A folder over HTTP, as tests use one."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from tests.servers.vfs_gateway import VfsGateway


class Documents:
    """A folder of a user, and what a test does with it."""

    def __init__(self, gateway: VfsGateway, client: httpx.Client, name: str, **more: Any) -> None:
        answer = client.post("/v1/folders", json={"name": name, **more})
        assert answer.status_code == 201, answer.text
        self.id: str = answer.json()["id"]
        self.client = client
        self.url = f"/v1/folders/{self.id}"
        # Only one folder of that name is anywhere in the volume.
        found = [path for path in gateway.volume.rglob(f"{self.id[4:]}") if path.is_dir()]
        self.path: Path = found[0] if found else gateway.volume

    def put(self, path: str, data: bytes, *, status: int = 201, **query: str) -> httpx.Response:
        url = f"{self.url}/files/{quote(path)}"
        answer = self.client.put(url, content=data, params=query)
        assert answer.status_code == status, answer.text
        return answer

    def put_status(self, path: str) -> int:
        return self.client.put(f"{self.url}/files/{quote(path)}", content=b"1").status_code

    def get(self, path: str, **headers: str) -> httpx.Response:
        told = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.client.get(f"{self.url}/files/{quote(path)}", headers=told)

    def post(self, what: str, **body: object) -> httpx.Response:
        return self.client.post(f"{self.url}/{what}", json=body)

    def names(self, path: str = "", *, recursive: bool = True, limit: int = 1000) -> list[str]:
        found: list[str] = []
        after: dict[str, str] = {}
        while True:
            answer = self.client.get(
                f"{self.url}/entries",
                params={"path": path, "recursive": recursive, "limit": limit, **after},
            )
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += [item["path"] for item in page["items"]]
            if page["next"] is None:
                return sorted(found)
            after = {"after": page["next"]}

    def used(self) -> tuple[int, int]:
        quota = self.client.get(self.url).json()["quota"]
        return quota["used_bytes"], quota["used_files"]
