"""A gateway's process that uploads by tus and is killed at a step of its own choosing.

    python -m tests.vfsproxy.dying_uploader CONFIG FOLDER

reads lines of `FLOW SIZE NAME STEP` and answers each with how the process ended that did it:
`killed` by SIGKILL just before or after the ledger, the store of uploads or the volume was asked
something for the STEP-th time, or `done`, having asked less often. A step of 0 kills when all is
done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request

from backupgw.kvstore.backends.posixfs_writer import PosixWriter
from backupgw.kvstore.ledger import SQLiteLedger
from backupgw.runtime.settings import load
from backupgw.runtime.threads import Threads
from backupgw.vfsproxy.core import Core
from backupgw.vfsproxy.folders.records import Permission
from backupgw.vfsproxy.identity import MANAGER
from backupgw.vfsproxy.tus.bodies import Space
from backupgw.vfsproxy.tus.database import DatabaseUploads
from backupgw.vfsproxy.tus.receiving import Terms
from backupgw.vfsproxy.tus.records import Upload
from backupgw.vfsproxy.tus.uploads import TusUploads

from .file_process import OCTETS, TUS, metadata

STEPS = (
    (SQLiteLedger, ("reserve", "grow", "park", "adopt", "release", "intend", "settle")),
    (SQLiteLedger, ("begin_new", "end_new")),
    (DatabaseUploads, ("add", "take", "keep", "release")),
    (PosixWriter, ("checkpoint", "commit")),
)


class Client:
    """Talks tus to a core of this process.

    Args:
        folder: its id.
    """

    def __init__(self, core: Core, folder: str) -> None:
        access = core.folders.resolve(MANAGER, folder, Permission.READ_WRITE)
        self.store = DatabaseUploads(core.database)
        self._space = Space(access.files, access.staging)
        self._folder = folder
        self._threads = Threads(2, "uploader")
        self._tus = TusUploads(self.store, self._threads, Terms())

    def create(self, name: str, length: int, body: bytes = b"") -> str:
        """POST an upload, with its first bytes perhaps; return its id."""
        told = {**TUS, "Upload-Metadata": metadata(filename=name), "Upload-Length": str(length)}
        request = _request("POST", {**OCTETS, **told} if body else told, body)
        reply = asyncio.run(
            self._tus.create_found(
                request,
                self._tus.wanted(request),
                lambda: (self._space, self._folder),
                owner="manager",
                url_of=lambda upload: upload,
            )
        )
        return reply.headers["Location"]

    def offset(self, upload_id: str) -> int:
        """HEAD an upload; return how much of it is kept."""
        request = _request("HEAD", TUS, b"")
        reply = asyncio.run(
            self._tus.head(request, self._found(upload_id), self._space, lambda part: part)
        )
        return int(reply.headers["Upload-Offset"])

    def patch(self, upload_id: str, offset: int, body: bytes) -> None:
        """PATCH an upload."""
        request = _request("PATCH", {**OCTETS, "Upload-Offset": str(offset)}, body)
        asyncio.run(self._tus.patch_found(request, lambda: (self._found(upload_id), self._space)))

    def _found(self, upload_id: str) -> Upload:
        upload = self.store.find(upload_id)
        assert upload is not None
        return upload


def _request(method: str, headers: dict[str, str], body: bytes) -> Request:
    told = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    told.append((b"content-length", str(len(body)).encode()))
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(messages)

    return Request({"type": "http", "method": method, "headers": told, "path": "/"}, receive)


def upload(client: Client, flow: str, size: int, name: str) -> None:
    """Do what clients do: `create` alone, `with` its first bytes, or the first bytes `after` it."""
    half = bytes(size // 2)
    upload_id = client.create(name, size, half if flow == "with" else b"")
    if flow == "after":
        client.patch(upload_id, 0, half)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dying_at(step: int) -> None:
    """Count what is asked from now on, and die at a step."""
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            _kill()

    def watched(work: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **more: Any) -> Any:
            count()
            result = work(*args, **more)
            count()
            return result

        return asked

    for kind, names in STEPS:
        for name in names:
            setattr(kind, name, watched(getattr(kind, name)))


def main(config: str, folder: str) -> None:
    settings = load(Path(config))
    for line in sys.stdin:
        flow, size, name, step = line.split()
        child = os.fork()
        if child == 0:
            with Core(settings, lambda _event: True) as core:
                client = Client(core, folder)
                _dying_at(int(step))
                upload(client, flow, int(size), name)
                if step == "0":
                    _kill()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = os.waitstatus_to_exitcode(status)
        print({-signal.SIGKILL: "killed", 0: "done"}.get(ended, f"failed {ended}"), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
