"""A node as its operator runs it: `backupgw wings serve`, servers' folders, a Panel, a restic."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from tests.servers import peers
from tests.servers.panel import TOKEN, TOKEN_ID, Panel
from tests.servers.process import ServerProcess
from tests.servers.restic_key import make_cheap

from backupgw.runtime.restic import Repository, Restic, find_program

PASSWORD = "correct horse battery"
OWNER = (4321, 4322)
"""Whom restored files belong to."""


class NodeSite:
    """A node. `start` or `with` runs it.

    Args:
        folder: for everything.
        panel: None: there is none.
        restic: a peer's name.
        repository: an address of restic's, in quotes of TOML; None: in the place "default".
        more: further lines of [wings], and sections behind it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        panel: Panel | None,
        restic: str = peers.RESTIC_NEW,
        repository: str | None = None,
        more: str = "",
        sections: str = "",
        state: str = "state",
        name: str = "node",
    ) -> None:
        self.folder = folder
        self.panel = panel
        self.restic_name = restic
        self.repository_address = repository
        self.data = folder / "volumes"
        self.data.mkdir(parents=True, exist_ok=True)
        self.state = folder / state
        self.place = folder / "place"
        self._process: ServerProcess | None = None
        self.config = folder / f"{name}.toml"
        wings_file = folder / f"{name}.yml"
        wings_file.write_text(
            json.dumps(
                {
                    "uuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
                    "token_id": TOKEN_ID,
                    "token": TOKEN,
                    "remote": "http://127.0.0.1:1" if panel is None else panel.url,
                    "system": {
                        "data": str(self.data),
                        "backup_directory": str(folder / "archives"),
                        "user": {"uid": OWNER[0], "gid": OWNER[1]},
                    },
                }
            )
        )
        where = "" if repository is None else f'repository = "{repository}"'
        no_panel = 'panel = ""' if panel is None else ""
        self.config.write_text(
            f"""
            [state]
            folder = "{self.state}"
            [places.default]
            url = "file://{self.place}"
            [jobs]
            lease = 2
            poll = 0.2
            [wings]
            listen = ["127.0.0.1:0"]
            wings_file = "{wings_file}"
            metrics = true
            keep_alive = 0.5
            {no_panel}
            {more}
            [wings.restic]
            binary = "{peers.get(restic).path}"
            password = "{PASSWORD}"
            cache = "{folder}/cache"
            {where}
            {sections}
            """
        )

    @property
    def repository_folder(self) -> Path:
        """Where the repository lies on disk."""
        return Path(self.repository_address or self.place / "wings")

    def make_repository(self) -> None:
        """Make it beforehand, so that it opens quickly."""
        restic = self.restic()
        restic.init()
        make_cheap(self.repository_folder, PASSWORD)

    def restic(self) -> Restic:
        """A restic on the repository, beside the node."""
        return Restic(
            find_program(str(peers.get(self.restic_name).path)),
            Repository(str(self.repository_folder), PASSWORD),
            cache=self.folder / "cache-of-test",
        )

    def start(self) -> None:
        """Run it."""
        self._process = ServerProcess(
            [Path(sys.executable).parent / "backupgw", "wings", "serve", "--config", self.config],
            ready=r"start server on (\S+)",
            environment={"XDG_CONFIG_HOME": str(self.folder), "HOME": str(self.folder)},
            directory=self.folder,
        )
        if self.panel is not None:
            self.panel.node = self.url

    @property
    def process(self) -> ServerProcess:
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def url(self) -> str:
        return f"http://{self.process.match[1]}"

    def stop(self) -> int:
        return self.process.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.stop()

    # -- servers

    def add_server(self, *, files: int = 3, size: int = 2000, server: str | None = None) -> str:
        """Make a server with a folder of files, links and an executable; return its uuid."""
        found = server or str(uuid.uuid4())
        if self.panel is not None:
            self.panel.add_server(found)
        root = self.data / found
        (root / "world" / "region").mkdir(parents=True)
        for number in range(files):
            (root / "world" / "region" / f"r.{number}.mca").write_bytes(os.urandom(size))
        (root / "server.properties").write_text(f"motd={found}\n")
        (root / "run.sh").write_text("#!/bin/sh\n")
        (root / "run.sh").chmod(0o750)
        (root / "latest").symlink_to("world/region")
        (root / "outside").symlink_to("/etc/hostname")
        (root / "empty").mkdir()
        return found

    def root(self, server: str) -> Path:
        return self.data / server

    def tree(self, server: str, *, owners: bool = False) -> dict[str, Any]:
        """What a server's folder holds, to be compared."""
        return tree(self.root(server), owners=owners)

    # -- requests

    def request(
        self, method: str, path: str, *, token: str | None = TOKEN, **more: Any
    ) -> httpx.Response:
        """Ask the node."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {token}")
        with httpx.Client(timeout=30, trust_env=False) as client:
            return client.request(method, f"{self.url}{path}", headers=headers, **more)

    def backup(self, server: str, backup: str | None = None, **more: Any) -> str:
        """Ask for a backup; return its uuid."""
        found = backup or str(uuid.uuid4())
        body = {"adapter": "restic", "uuid": found, "ignore": "", **more}
        answer = self.request("POST", f"/api/servers/{server}/backup", json=body)
        assert (answer.status_code, answer.content) == (202, b""), answer.text
        return found

    def snapshots(self, server: str, query: str = "") -> list[dict[str, Any]]:
        """Ask for the list."""
        answer = self.request("GET", f"/api/servers/{server}/backup/snapshots{query}")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["snapshots"]
        return found

    @contextmanager
    def listening(self, *servers: str, **headers: str) -> Iterator[Listener]:
        """Listen to events."""
        listener = Listener(self, servers, headers)
        try:
            yield listener
        finally:
            listener.close()


class Listener:
    """A client of the stream of events."""

    def __init__(self, site: NodeSite, servers: tuple[str, ...], headers: dict[str, str]) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ids: list[str] = []
        self.comments: list[str] = []
        self.headers: httpx.Headers | None = None
        self._changed = threading.Condition()
        self._client = httpx.Client(timeout=httpx.Timeout(30, read=60), trust_env=False)
        self._request = self._client.build_request(
            "GET",
            f"{site.url}/api/events?servers={','.join(servers)}",
            headers={"Authorization": f"Bearer {TOKEN}", **headers},
        )
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._open.wait(30)

    def _read(self) -> None:
        try:
            answer = self._client.send(self._request, stream=True)
            self.headers = answer.headers
            name, number = "", ""
            for line in answer.iter_lines():
                self._open.set()
                if line.startswith(":"):
                    with self._changed:
                        self.comments.append(line)
                        self._changed.notify_all()
                elif line.startswith("id: "):
                    number = line[4:]
                elif line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    with self._changed:
                        self.events.append((name, json.loads(line[6:])))
                        self.ids.append(number)
                        number = ""
                        self._changed.notify_all()
        except (httpx.HTTPError, httpx.StreamError, RuntimeError):
            pass
        finally:
            self._open.set()

    def wait_for(self, name: str, count: int = 1, timeout: float = 60) -> list[dict[str, Any]]:
        """Return the events of a name once there are so many."""

        def found() -> list[dict[str, Any]]:
            return [data for each, data in self.events if each == name]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, timeout), self.events
            return found()

    def wait_for_comment(self, text: str, timeout: float = 30) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.comments, timeout), self.comments

    def close(self) -> None:
        self._client.close()
        self._thread.join(10)


def tree(root: Path, *, owners: bool = False) -> dict[str, Any]:
    """What a folder holds: kind, mode, content or target, and owners where they matter."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        owner = (status.st_uid, status.st_gid) if owners else ()
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path), owner)
        elif path.is_dir():
            found[name] = ("folder", mode, owner)
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = ("file", mode, digest, int(status.st_mtime), owner)
    return found


def wipe(root: Path) -> None:
    """Remove all that a folder holds."""
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
