"""The servers of files that `benchmarks.vfsproxy` compares, and how a client asks each of them.

A lane is a server and one way of asking it: the same server may be in several lanes. A session of
a lane is one client with connections of its own; it checks every status and every length.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from benchmarks.wire import BadResponse, Connection

HOST = "127.0.0.1"
TRIES = 5
"""Times that an upload is begun: Backend.AI's proxy answers some of many at a time with a 500."""
_OCTETS = {"Content-Type": "application/offset+octet-stream", "Tus-Resumable": "1.0.0"}


@dataclass(frozen=True)
class Lane:
    """A server and a way of asking it.

    Attributes:
        caveat: what it leaves out that others do.
        pid: of the server's first process.
        open: returns a session.
    """

    name: str
    caveat: str
    pid: int
    open: Callable[[], Session]


class Session(ABC):
    """One client.

    Attributes:
        repeated: uploads that the server failed at, and that were begun anew.
    """

    def __init__(self, *ports: int) -> None:
        self._ports = ports
        self.repeated = 0
        self._connections: list[Connection] = []
        self._connect()

    def _connect(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections = [Connection(HOST, port, tls=None) for port in self._ports]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for connection in self._connections:
            connection.close()

    @abstractmethod
    def upload(self, name: str, body: memoryview) -> None:
        """Store a new file."""

    @abstractmethod
    def download(self, name: str, size: int) -> None:
        """Read a file of so many bytes, and throw it away."""


class Plain(Session):
    """By PUT and GET of one path.

    Args:
        base: path before that of a file.
    """

    def __init__(self, port: int, base: str, headers: Mapping[str, str]) -> None:
        super().__init__(port)
        self._base, self._headers = base, headers

    def upload(self, name: str, body: memoryview) -> None:
        (connection,) = self._connections
        head = _head("PUT", f"{self._base}{name}", self._headers, len(body))
        connection.send([head, body])
        connection.stream(201)

    def download(self, name: str, size: int) -> None:
        (connection,) = self._connections
        connection.send([_head("GET", f"{self._base}{name}", self._headers)])
        connection.discard(200, size)


class Tus(Session):
    """By tus: a POST that creates the upload, a PATCH with its bytes."""

    def __init__(self, port: int, folder: str, headers: Mapping[str, str]) -> None:
        super().__init__(port)
        self._folder, self._headers = folder, headers

    def upload(self, name: str, body: memoryview) -> None:
        (connection,) = self._connections
        creating = {
            **self._headers,
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(len(body)),
            "Upload-Metadata": f"filename {b64encode(name.encode()).decode()}",
        }
        connection.send([_head("POST", f"{self._folder}/uploads", creating, 0)])
        created, _ = connection.stream(201)
        path = created.headers[b"location"].decode()
        patching = {**self._headers, **_OCTETS, "Upload-Offset": "0"}
        connection.send([_head("PATCH", path, patching, len(body)), body])
        connection.bodyless(204)

    def download(self, name: str, size: int) -> None:
        (connection,) = self._connections
        connection.send([_head("GET", f"{self._folder}/files/{name}", self._headers)])
        connection.discard(200, size)


class ByToken(Session):
    """As Backend.AI's clients do it: a manager gives a token for each transfer, the client uses it.

    Args:
        secret: that the manager shows.
        folder: its `vfid`.
    """

    def __init__(self, client: int, manager: int, *, secret: str, folder: str) -> None:
        super().__init__(client, manager)
        self._manager = {
            "X-BackendAI-Storage-Auth-Token": secret,
            "Content-Type": "application/json",
        }
        self._where = {"volume": "main", "vfid": folder}

    def upload(self, name: str, body: memoryview) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._upload(name, body)
            except BadResponse:
                if not left:
                    raise
                self.repeated += 1
                self._connect()
            else:
                return

    def _upload(self, name: str, body: memoryview) -> None:
        token = self._token("/folder/file/upload", {"relpath": name, "size": len(body)})
        client = self._connections[0]
        patching = {**_OCTETS, "Upload-Offset": "0"}
        client.send([_head("PATCH", f"/upload?token={token}", patching, len(body)), body])
        client.bodyless(204)

    def download(self, name: str, size: int) -> None:
        token = self._token("/folder/file/download", {"relpath": name})
        client = self._connections[0]
        client.send([_head("GET", f"/download?token={token}", {})])
        client.discard(200, size)

    def _token(self, path: str, wanted: Mapping[str, object]) -> str:
        manager = self._connections[1]
        body = json.dumps({**self._where, **wanted}).encode()
        manager.send([_head("POST", path, self._manager, len(body)), body])
        _, answer = manager.stream(200)
        token: str = json.loads(answer)["token"]
        return token


def _head(method: str, path: str, headers: Mapping[str, str], length: int | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()
