"""A `file_site` as a process of its own, and what tests ask of it."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import time
from base64 import b64encode
from pathlib import Path

import httpx
from tests.runtime.http_process import PATIENCE, Wire
from tests.servers.process import ServerProcess
from tests.vfsproxy.file_site import Site

from backupgw.kvstore.ledger import NOTHING, Amount, Usage
from backupgw.runtime.database import open_database, sqlite_url
from backupgw.vfsproxy.tus.database import DatabaseUploads
from backupgw.vfsproxy.tus.records import Upload

TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {**TUS, "Content-Type": "application/offset+octet-stream"}


class FileProcess(ServerProcess):
    """A running site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        asked = json.dumps(dataclasses.asdict(site))
        super().__init__(
            [sys.executable, "-m", "tests.vfsproxy.file_site", asked],
            ready=r"start server on (\S+)",
            directory=Path(__file__).resolve().parents[2],
        )
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)

    @property
    def url(self) -> str:
        return f"http://{self.match[1]}"

    @property
    def port(self) -> int:
        return int(self.match[1].rpartition(":")[2])

    @property
    def files(self) -> Path:
        """Where the files lie, of a site on this disk."""
        return Path(self.site.state) / "volume" / "files"

    def connect(self) -> Wire:
        """Return a connection of which the test sees every byte."""
        return Wire(socket.create_connection(("127.0.0.1", self.port), PATIENCE))

    def create(self, length: int | None, name: str = "a.bin", **headers: str) -> httpx.Response:
        """POST an upload; further headers with _ for -."""
        told = {**TUS, "Upload-Metadata": metadata(filename=name)}
        if length is None:
            told["Upload-Defer-Length"] = "1"
        elif length >= 0:
            told["Upload-Length"] = str(length)
        told |= {key.replace("_", "-"): value for key, value in headers.items()}
        return self.client.post("/uploads/", headers=told)

    def start(self, length: int | None, name: str = "a.bin", **headers: str) -> str:
        """Create an upload and return its path."""
        answer = self.create(length, name, **headers)
        assert answer.status_code == 201, answer.text
        return answer.headers["location"]

    def head(self, path: str) -> httpx.Response:
        return self.client.head(path, headers=TUS)

    def patch(self, path: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
        told = {**OCTETS, "Upload-Offset": str(offset)}
        told |= {key.replace("_", "-"): value for key, value in headers.items()}
        return self.client.patch(path, headers=told, content=data)

    def wait_until_kept(self, path: str) -> int:
        """Wait until something of an upload is kept, without touching it; return how much."""
        ended = time.monotonic() + PATIENCE
        with open_database(sqlite_url(Path(self.site.state) / "state.sqlite3")) as database:
            store = DatabaseUploads(database)
            while time.monotonic() < ended:
                upload = store.find(path.rpartition("/")[2])
                assert upload is not None
                if upload.offset:
                    return upload.offset
                time.sleep(0.02)
        raise AssertionError(f"nothing of {path} is kept")

    def upload(self, path: str) -> Upload:
        """Return an upload as it is remembered."""
        with open_database(sqlite_url(Path(self.site.state) / "state.sqlite3")) as database:
            found = DatabaseUploads(database).find(path.rpartition("/")[2])
        assert found is not None
        return found

    def stop(self) -> int:
        self.client.close()
        return super().stop()

    def kill(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        super().kill()


def metadata(**pairs: str) -> str:
    """Return an Upload-Metadata header."""
    return ",".join(f"{key} {b64encode(value.encode()).decode()}" for key, value in pairs.items())


def patch_head(path: str, offset: int, length: int) -> bytes:
    """Return the head of a PATCH whose body the test sends as it likes."""
    return (
        f"PATCH {path} HTTP/1.1\r\nHost: t\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def usage(server: FileProcess) -> Usage:
    """What the folder's account says."""
    ledger = server.site.ledger()
    ledger.open()
    try:
        return ledger.usage("folder")
    finally:
        ledger.close()


def _on_disk(server: FileProcess) -> Amount:
    files = [path for path in server.files.rglob("*") if path.is_file()]
    return Amount(sum(path.stat().st_size for path in files), len(files))


def check_accounts(server: FileProcess) -> None:
    """Nothing is staged or reserved, and what is used is what is there."""
    ended = time.monotonic() + 20
    # What only adds may be settled a moment after it was answered.
    while usage(server).reserved != NOTHING and time.monotonic() < ended:
        time.sleep(0.05)
    assert usage(server).reserved == NOTHING
    assert usage(server).used == _on_disk(server)
    staging = Path(server.site.state) / "volume" / "staging"
    assert [path for path in staging.rglob("*") if path.is_file()] == []
