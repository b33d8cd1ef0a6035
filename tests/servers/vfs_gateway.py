"""Our own gateway for virtual folders, as users start it: `backupgw vfs serve`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from backupgw.runtime.authorisation import Scope
from backupgw.runtime.settings import load
from backupgw.runtime.tokens import mint, open_store

from .process import ServerProcess
from .running import Running

MANAGER_TOKEN = "the-manager-shows-this-one"
BACKUPGW = str(Path(sys.executable).parent / "backupgw")

_CONFIG = """\
[state]
folder = "{folder}/state"
{state}
{jobs}
[vfs]
listen = ["127.0.0.1:{client_port}"]
{vfs}
[vfs.volumes.main]
type = "fs"
path = "{volume}"
{more}
[vfs_manager]
listen = ["127.0.0.1:{manager_port}"]
token = "{token}"
"""


class VfsGateway(Running):
    """A gateway of one folder: its settings, its state and its volume. A context manager.

    Args:
        folder: made if it is missing.
        state: lines of `[state]`, such as a database that gateways share.
        vfs: lines of `[vfs]`; more: whole sections.
        volume: the folder of the volume `main`; by default one in `folder`.
        environment: of the process.
        jobs: lines of a section; by default, what is due is noticed at once.
    """

    def __init__(
        self,
        folder: Path,
        *,
        state: str = "",
        vfs: str = "",
        more: str = "",
        volume: Path | None = None,
        environment: Mapping[str, str] | None = None,
        jobs: str = "[jobs]\npoll = 0.1",
    ) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.volume = volume or self.folder / "volume"
        self.config = self.folder / "backupgw.toml"
        self._parts = {"state": state, "vfs": vfs, "more": more, "jobs": jobs}
        self._environment = environment
        self._process: ServerProcess | None = None
        self.client_port = 0
        self.manager_port = 0
        self._write()

    def _write(self) -> None:
        self.config.write_text(
            _CONFIG.format(
                folder=self.folder,
                volume=self.volume,
                token=MANAGER_TOKEN,
                client_port=self.client_port,
                manager_port=self.manager_port,
                **self._parts,
            )
        )
        self.config.chmod(0o600)

    def start(self) -> None:
        """Run it until `stop` or `kill`; after that, it has the same ports again."""
        self._write()
        # The client's address is announced first, the manager's after it.
        self._process = ServerProcess(
            [BACKUPGW, "--config", self.config, "vfs", "serve"],
            ready=r"start server on 127\.0\.0\.1:(\d+)",
            environment=self._environment,
            directory=self.folder,
        )
        self.client_port = int(self._process.match[1])
        line = self._process.wait_for_line(
            rf"start server on 127\.0\.0\.1:(?!{self.client_port}$)\d+$"
        )
        found = re.search(r"(\d+)$", line)
        assert found is not None
        self.manager_port = int(found[1])

    @property
    def process(self) -> ServerProcess:
        assert self._process is not None
        return self._process

    def stop(self) -> int:
        """End it; return its exit status."""
        return self.process.stop()

    def kill(self) -> None:
        """End it and its workers with SIGKILL."""
        self.process.kill()

    @property
    def url(self) -> str:
        """Of the API for clients."""
        return f"http://127.0.0.1:{self.client_port}"

    @property
    def manager_url(self) -> str:
        """Of the API for managers."""
        return f"http://127.0.0.1:{self.manager_port}"

    def key(self, user: str, *, allow: str = "admin", on: str = "folder:**") -> str:
        """Return a new API key of a user."""
        store = open_store(load(self.config))
        try:
            scope = Scope.parse([allow], [on])
            text, token = mint(user, scope, now=time.time(), expires=None)
            store.add(token)
        finally:
            store.close()
        return text

    def client(self, user: str, *, allow: str = "admin", on: str = "folder:**") -> httpx.Client:
        """Return a client that is a user; closed by whoever asked for it."""
        key = self.key(user, allow=allow, on=on)
        return httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {key}"}, timeout=60
        )

    def manager(self) -> httpx.Client:
        """Return a client that is the manager; closed by whoever asked for it."""
        return httpx.Client(
            base_url=self.manager_url,
            headers={"x-backendai-storage-auth-token": MANAGER_TOKEN},
            timeout=60,
        )
