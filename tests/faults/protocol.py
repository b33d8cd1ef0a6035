"""A small client of restic's REST protocol that lets faults through instead of hiding them.

It never retries and never reconnects by itself: whoever breaks a server on purpose must know which
request was answered and which was not.
"""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterable, Mapping
from typing import Self

KINDS = ("data", "index", "keys", "locks", "snapshots")

V2 = "application/vnd.x.restic.rest.v2"

PIECE = 1 << 16

BROKEN = (OSError, http.client.HTTPException)
"""What a request raises when the connection or the server is gone."""


def blob_name(body: bytes) -> str:
    """The name under which a blob is stored: its SHA-256 in lower-case hex."""
    return hashlib.sha256(body).hexdigest()


class Client:
    """One keep-alive connection. Every method returns the status of its answer."""

    def __init__(self, port: int, *, timeout: float = 60) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.said = ""
        """The body of the last answer, as text, for messages."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def create(self, repository: str) -> int:
        return self._send("POST", f"/{repository}/?create=true")[0]

    def upload(self, repository: str, kind: str, body: bytes) -> int:
        return self._send("POST", f"/{repository}/{kind}/{blob_name(body)}", body)[0]

    def upload_in_pieces(self, repository: str, kind: str, body: bytes) -> int:
        """Upload without telling the length (`Transfer-Encoding: chunked`)."""
        pieces = [body[start : start + PIECE] for start in range(0, len(body), PIECE)]
        return self._send("POST", f"/{repository}/{kind}/{blob_name(body)}", pieces)[0]

    def save_config(self, repository: str, body: bytes) -> int:
        return self._send("POST", f"/{repository}/config", body)[0]

    def delete(self, path: str) -> int:
        """Remove `path`: `REPOSITORY/KIND/NAME` or `REPOSITORY/config`."""
        return self._send("DELETE", f"/{path}")[0]

    def read(self, path: str) -> tuple[int, bytes]:
        return self._send("GET", f"/{path}")

    def names(self, repository: str, kind: str) -> dict[str, int]:
        """Sizes by name of what the server lists.

        Raises:
            AssertionError: the answer is neither a list nor "there is no such folder".
        """
        status, body = self._send("GET", f"/{repository}/{kind}/", headers={"Accept": V2})
        if status == 404:
            return {}
        assert status == 200, f"listing {repository}/{kind}: {status} {self.said}"
        return {entry["name"]: entry["size"] for entry in json.loads(body)}

    def _send(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        self._connection.request(method, target, body, headers or {})
        answer = self._connection.getresponse()
        content = answer.read()
        self.said = content[:500].decode(errors="replace").strip()
        return answer.status, content
