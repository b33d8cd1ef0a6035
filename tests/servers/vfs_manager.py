"""A Manager that knows users, as docs/vfs.md describes it: `GET /users/NAME`, `POST /usage`."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class VfsManager:
    """A context manager that serves on a free port.

    Attributes:
        users: what is said of each; a user who is not there is unknown.
        usage: what was told.
        asked: how often users were asked for.
        token: of the last request.
        broken: answer everything with 500.
    """

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.usage: list[dict[str, Any]] = []
        self.asked = 0
        self.token: str | None = None
        self.broken = False
        manager = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                manager.asked += 1
                manager.token = self.headers.get("X-BackendAI-Storage-Auth-Token")
                name = self.path.removeprefix("/users/")
                found = manager.users.get(name)
                self._answer(200 if found is not None else 404, found or {})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                manager.usage.append(json.loads(body))
                self._answer(200, {})

            def _answer(self, status: int, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(500 if manager.broken else status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()
