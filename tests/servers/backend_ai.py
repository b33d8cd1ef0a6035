"""Backend.AI's own storage proxy with what it stands on: etcd and Redis. For benchmarks.

    python3.13 -m venv .peers/backend-ai
    .peers/backend-ai/bin/pip install backend.ai-storage-proxy
    apt-get install etcd-server redis-server

It wants Python 3.13 and about 150 MB, so `make peers` leaves it out.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from .free_port import free_ports
from .peers import FOLDER
from .process import ServerProcess
from .redis import Redis

PYTHON = FOLDER / "backend-ai" / "bin" / "python"
"""Of the environment in which the storage proxy is installed."""
MANAGER_SECRET = "the-manager-shows-this-one"

_CONFIG = """\
[etcd]
namespace = "local"
addr = {{ host = "127.0.0.1", port = {etcd} }}
[storage-proxy]
node-id = "i-measured"
num-proc = {processes}
event-loop = "uvloop"
secret = "what-signs-the-tokens-of-transfers"
session-expire = "1d"
ipc-base-path = "{folder}/ipc"
aiomonitor-termui-port = {terminal}
aiomonitor-webui-port = {web}
[api.client]
service-addr = {{ host = "127.0.0.1", port = {client} }}
ssl-enabled = false
[api.manager]
service-addr = {{ host = "127.0.0.1", port = {manager} }}
announce-addr = {{ host = "127.0.0.1", port = {manager} }}
internal-addr = {{ host = "127.0.0.1", port = {internal} }}
ssl-enabled = false
secret = "{secret}"
[volume.main]
backend = "vfs"
path = "{folder}/volume"
[logging]
level = "INFO"
drivers = ["console"]
pkg-ns = {{ "" = "WARNING", "ai.backend" = "WARNING", "ai.backend.storage.server" = "INFO" }}
"""


class BackendAi:
    """The storage proxy with one volume, `main`. A context manager.

    Args:
        folder: made if it is missing.
        processes: that answer requests; its default is one for each core.

    Attributes:
        client_port, manager_port: of its two APIs.
    """

    def __init__(self, folder: Path, *, processes: int = 1) -> None:
        self.folder = folder.absolute()
        for name in ("etcd", "ipc", "volume"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "volume" / "version.txt").write_text("3")  # of the layout of its folders
        self._processes = processes
        # Nothing has to survive: it is as fast as it can be.
        self._redis = Redis(self.folder / "redis", flags=("--appendonly", "no"))
        self._etcd: ServerProcess | None = None
        self._proxy: ServerProcess | None = None
        self.client_port = 0
        self.manager_port = 0

    @property
    def pid(self) -> int:
        """Of the proxy's first process."""
        assert self._proxy is not None
        return self._proxy.pid

    def start(self) -> None:
        """Run everything. Raises ServerFailed, or LookupError where it is not installed."""
        if not PYTHON.exists():
            raise LookupError(f"Backend.AI's storage proxy is missing: {__doc__}")
        etcd, peer, self.client_port, self.manager_port, internal, terminal, web = free_ports(7)
        self._redis.start()
        url, other = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        self._etcd = ServerProcess(
            [
                "etcd",
                *["--data-dir", str(self.folder / "etcd")],
                *["--listen-client-urls", url, "--advertise-client-urls", url],
                *["--listen-peer-urls", other, "--initial-advertise-peer-urls", other],
                *["--initial-cluster", f"default={other}"],
            ],
            ready=r"ready to serve client requests",
            directory=self.folder,
        )
        _put(url, "/sorna/local/config/redis/addr", f"127.0.0.1:{self._redis.port}")
        config = self.folder / "storage-proxy.toml"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                processes=self._processes,
                secret=MANAGER_SECRET,
                etcd=etcd,
                client=self.client_port,
                manager=self.manager_port,
                internal=internal,
                terminal=terminal,
                web=web,
            )
        )
        self._proxy = ServerProcess(
            [PYTHON, "-m", "ai.backend.storage.server", "-f", config],
            ready=r"Started the storage-proxy service",
            directory=self.folder,
        )

    def stop(self) -> None:
        """End everything. Idempotent."""
        for process in (self._proxy, self._etcd):
            if process is not None:
                process.stop()
        self._proxy = self._etcd = None
        self._redis.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def version() -> str:
    """Return which one is installed, "" for none."""
    folders = FOLDER.glob("backend-ai/lib/*/site-packages/backend_ai_storage_proxy-*.dist-info")
    return next((folder.name.split("-")[1].removesuffix(".dist") for folder in folders), "")


def _put(url: str, key: str, value: str) -> None:
    """Write to etcd by the JSON of its gateway."""
    document = {
        name: base64.b64encode(text.encode()).decode()
        for name, text in (("key", key), ("value", value))
    }
    with urllib.request.urlopen(f"{url}/v3/kv/put", json.dumps(document).encode()) as answer:
        answer.read()
