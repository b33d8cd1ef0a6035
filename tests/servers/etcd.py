"""etcd as Debian has it, one member on a free port of 127.0.0.1, stopped and started at will."""

from __future__ import annotations

import base64
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from .process import ServerFailed, ServerProcess

PROGRAM = "etcd"
ATTEMPTS = 5
"""Ports tried: between finding a free one and using it, another program may take it."""


class EtcdServer:
    """A context manager; the same port and data after a restart."""

    def __init__(self, folder: Path, *, flags: tuple[str, ...] = (), scheme: str = "http") -> None:
        self.folder = folder.absolute()
        self.port = 0
        self._flags = flags
        self._scheme = scheme
        self._token: dict[str, str] = {}
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Run it until `stop`. Raises ServerFailed with what it printed."""
        self.folder.mkdir(exist_ok=True)
        for attempt in range(ATTEMPTS):
            port = self.port or _free_port()
            try:
                self._process = ServerProcess(
                    [shutil.which(PROGRAM) or PROGRAM, *self._arguments(port)],
                    ready=r"ready to serve client requests",
                    directory=self.folder,
                )
            except ServerFailed:
                if self.port or attempt == ATTEMPTS - 1:
                    raise
            else:
                self.port = port
                return

    def _arguments(self, port: int) -> list[str]:
        url = f"{self._scheme}://127.0.0.1:{port}"
        return [
            *["--data-dir", str(self.folder / "data")],
            *["--listen-client-urls", url, "--advertise-client-urls", url],
            # Nobody joins it: any free port will do, a unix socket as well.
            *["--listen-peer-urls", "unix://peers.sock:0", "--unsafe-no-fsync"],
            *self._flags,
        ]

    def stop(self) -> None:
        """End it; its port stays its own for the next start. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def put(self, key: str, value: str) -> None:
        """Set a key."""
        self.ask("/v3/kv/put", key=_written(key), value=_written(value))

    def remove(self, key: str) -> None:
        """Remove a key."""
        self.ask("/v3/kv/deleterange", key=_written(key))

    def empty(self) -> None:
        """Remove all keys."""
        self.ask("/v3/kv/deleterange", key="AA==", range_end="AA==")

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """Call its HTTP gateway."""
        told = httpx.post(
            f"{self.url}{path}", json=body, headers=self._token, timeout=30, trust_env=False
        )
        assert told.status_code == 200, told.text
        found: dict[str, Any] = told.json()
        return found

    def demand_passwords(self, user: str, password: str, prefix: str) -> None:
        """Switch its authentication on: root, and a user who may read below a prefix."""
        for name, secret in (("root", "root's own"), (user, password)):
            self.ask("/v3/auth/user/add", name=name, password=secret)
            self.ask("/v3/auth/role/add", name=name)
            self.ask("/v3/auth/user/grant", user=name, role=name)
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        permission = {"permType": "READ", "key": _written(prefix), "range_end": _written(end)}
        self.ask("/v3/auth/role/grant", name=user, perm=permission)
        self.ask("/v3/auth/enable")
        who = {"name": "root", "password": "root's own"}
        self._token = {"Authorization": self.ask("/v3/auth/authenticate", **who)["token"]}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _written(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
