"""The least that Drime's API allows for each blob by itself, asked straight.

A server in between can be faster only where it knows what comes next.

Blobs up to 5,000,000 bytes are one request; larger ones are begun, signed, sent in parts that are
all under way at a time, joined and registered. A download is asked for, and fetched from the
storage.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

SIMPLE = 5_000_000
PART = 5 << 20
_BOUNDARY = "least"


class LeastClient:
    """One client, with a connection to the API and as many to the storage as it needs.

    Args:
        url: base of the API.
        key: which it accepts.
        ids: of the blobs that were uploaded, by name; shared among clients.
    """

    def __init__(self, url: str, key: str, ids: dict[str, int]) -> None:
        api = urlsplit(url)
        self._base = api.path
        self._api = HTTPConnection(api.netloc, timeout=120)
        self._storage: dict[str, HTTPConnection] = {}
        self._key = {"Authorization": f"Bearer {key}"}
        self._ids = ids

    def close(self) -> None:
        """Let go of the connections."""
        for connection in (self._api, *self._storage.values()):
            connection.close()

    def upload(self, name: str, value: bytes) -> None:
        """Upload a blob."""
        send = self._simple if len(value) <= SIMPLE else self._in_parts
        entry = send(name, value)
        self._ids[name] = entry["fileEntry"]["id"]

    def _simple(self, name: str, value: bytes) -> Any:
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="workspaceId"\r\n\r\n0\r\n'
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        body = b"".join((head, value, f"\r\n--{_BOUNDARY}--\r\n".encode()))
        kind = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        return self._asked("/uploads", body, kind)

    def _in_parts(self, name: str, value: bytes) -> Any:
        about = {"size": len(value), "workspaceId": 0, "relativePath": name, "extension": "bin"}
        upload = self._post("/s3/multipart/create", about | {"filename": name, "mime": "a/b"})
        parts = [value[start : start + PART] for start in range(0, len(value), PART)]
        asked = upload | {"partNumbers": [*range(1, len(parts) + 1)]}
        signed = self._post("/s3/multipart/batch-sign-part-urls", asked)["urls"]

        def sent(number: int) -> dict[str, Any]:
            url = signed[number - 1]["url"]
            answer, _ = self._of_storage(f"part {number}", "PUT", url, parts[number - 1])
            return {"PartNumber": number, "ETag": answer.getheader("ETag")}

        with ThreadPoolExecutor(len(parts)) as pool:
            tags = [*pool.map(sent, range(1, len(parts) + 1))]
        self._post("/s3/multipart/complete", upload | {"parts": tags})
        stored = upload["key"].rpartition("/")[2]
        return self._post(
            "/s3/entries",
            about
            | {
                "clientMime": "a/b",
                "clientName": name,
                "filename": stored,
                "clientExtension": "bin",
            },
        )

    def download(self, name: str) -> bytes:
        """Fetch a blob."""
        hashed = base64.b64encode(f"{self._ids[name]}|".encode()).decode().rstrip("=")
        path = f"{self._base}/file-entries/download/{hashed}"
        self._api.request("GET", path, headers=self._key)
        with contextlib.closing(self._api.getresponse()) as answer:
            answer.read()
            where = answer.getheader("Location")
        assert where is not None
        return self._of_storage("get", "GET", where, None)[1]

    def _post(self, route: str, asked: dict[str, Any]) -> Any:
        return self._asked(route, json.dumps(asked).encode(), {"Content-Type": "application/json"})

    def _asked(self, route: str, body: bytes, headers: dict[str, str]) -> Any:
        self._api.request("POST", self._base + route, body, headers | self._key)
        response = self._api.getresponse()
        answer = response.read()
        if response.status not in (200, 201):
            raise SystemExit(f"{route}: status {response.status}, {answer!r}")
        return json.loads(answer)

    def _of_storage(
        self, line: str, method: str, url: str, body: bytes | None
    ) -> tuple[HTTPResponse, bytes]:
        where = urlsplit(url)
        connection = self._storage.get(line)
        if connection is None:
            connection = self._storage[line] = HTTPConnection(where.netloc, timeout=120)
        connection.request(method, f"{where.path}?{where.query}", body)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise SystemExit(f"{method} of the storage: status {response.status}")
        return response, answer


def work(
    url: str, key: str, ids: dict[str, int], what: str, named: Sequence[tuple[str, bytes]]
) -> None:
    """Upload or download blobs one after the other."""
    with contextlib.closing(LeastClient(url, key, ids)) as client:
        for name, value in named:
            if what == "upload":
                client.upload(name, value)
            elif client.download(name) != value:
                raise SystemExit(f"{what} of {name}: other bytes")
