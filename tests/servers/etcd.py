"""etcd as Debian has it, one member."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, ClassVar

import httpx

from .own_port import OwnPort


class EtcdServer(OwnPort):
    """A context manager; the same port and data after a restart."""

    program: ClassVar[str] = "etcd"
    ready: ClassVar[str] = r"ready to serve client requests"

    def __init__(self, folder: Path, *, flags: tuple[str, ...] = (), scheme: str = "http") -> None:
        super().__init__(folder, flags=flags)
        self._scheme = scheme
        self._token: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def _arguments(self, port: int) -> list[str]:
        url = f"{self._scheme}://127.0.0.1:{port}"
        return [
            *["--data-dir", str(self.folder / "data")],
            *["--listen-client-urls", url, "--advertise-client-urls", url],
            # Nobody joins it: any free port will do, a unix socket as well.
            *["--listen-peer-urls", "unix://peers.sock:0", "--unsafe-no-fsync"],
        ]

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


def _written(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
