"""A client of the protocol that does one request at a time and shows what it got."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import NamedTuple

from tests.servers.rest_server import RestServer


class Answer(NamedTuple):
    status: int
    text: str
    headers: Mapping[str, str]


class Client:
    """Somebody who talks to a server: with a password, a bearer token, or neither."""

    def __init__(
        self, server: RestServer, user: str = "", password: str = "", *, bearer: str = ""
    ) -> None:
        self._server = server
        self._headers = {}
        if bearer:
            self._headers["Authorization"] = f"Bearer {bearer}"
        elif user:
            login = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"

    def call(self, method: str, path: str, body: bytes = b"") -> Answer:
        connection = HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        try:
            connection.request(method, path, body, self._headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            return Answer(response.status, text, dict(response.getheaders()))
        finally:
            connection.close()

    def status(self, method: str, path: str, body: bytes = b"") -> int:
        return self.call(method, path, body).status

    def save(self, repo: str, kind: str = "data", content: bytes | None = None) -> tuple[int, str]:
        """Upload an object; return the status and the object's path."""
        content = os.urandom(100) if content is None else content
        path = f"/{repo}/{kind}/{hashlib.sha256(content).hexdigest()}"
        return self.status("POST", path, content), path
