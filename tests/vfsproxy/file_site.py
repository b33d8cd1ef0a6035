"""A service of one folder's files and uploads alone, and `python -m` to host it.

What uploads and files promise stands on a volume, a store of sessions and the HTTP host; here is
nothing else. Run with one JSON object: a `Site`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendAlreadyExists
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.prefix import PrefixLayer
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import Ledger, Limit, SQLiteLedger
from backupgw.kvstore.registry import open_place
from backupgw.runtime.database import open_database, sqlite_url
from backupgw.runtime.http.host import Hosted, run
from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.threads import Threads
from backupgw.vfsproxy.files.incoming import ClientLeft
from backupgw.vfsproxy.files.reply import Reply
from backupgw.vfsproxy.problems import Problem
from backupgw.vfsproxy.tus.bodies import Space
from backupgw.vfsproxy.tus.database import DatabaseUploads
from backupgw.vfsproxy.tus.receiving import Terms
from backupgw.vfsproxy.tus.serving import method_of
from backupgw.vfsproxy.tus.uploads import TusUploads

FOLDER = "f1"
LEDGER_PLACE = "volume"


@dataclass(frozen=True)
class Site:
    """What is served.

    Attributes:
        state: folder for the database, the ledger, and a volume on this disk.
        volume: URL of the volume; "" is on this disk.
        pieces: the volume does not carry writes on, whatever it can.
        limit: bytes that the folder may hold.
        terms: see `Terms`.
        port: 0 takes a free one.
    """

    state: str
    volume: str = ""
    pieces: bool = False
    limit: int | None = None
    terms: Terms = dataclasses.field(default_factory=Terms)
    port: int = 0

    def ledger(self) -> SQLiteLedger:
        """Return the ledger, not open."""
        return SQLiteLedger(f"{self.state}/ledger.sqlite3")

    def open_volume(self, ledger: Ledger) -> QuotaLayer:
        """Open the volume, made where there is none, under quota."""
        place: Backend = (
            open_place(self.volume)
            if self.volume
            else PosixFS(f"{self.state}/volume", durability="fast")
        )
        with contextlib.suppress(BackendAlreadyExists):
            place.create()
        if self.pieces:
            place = Layer(place)
        volume = QuotaLayer(
            place, ledger, lambda _name: ("folder",), place=LEDGER_PLACE, whole=True
        )
        volume.open()
        for folder in ("files", "staging"):
            volume.mkdir(folder)
        return volume


def opened(volume: Backend, folder: str) -> Backend:
    """Return a folder of an open volume as a place."""
    place = PrefixLayer(volume, folder)
    place._opened = True
    return place


class App:
    """The ASGI application."""

    def __init__(self, site: Site) -> None:
        self.ledger = site.ledger()
        self.ledger.open()
        if site.limit is not None:
            self.ledger.set_limit("folder", Limit(hard_bytes=site.limit))
        self.volume = site.open_volume(self.ledger)
        self.space = Space(opened(self.volume, "files"), opened(self.volume, "staging"))
        self.database = open_database(sqlite_url(Path(site.state) / "state.sqlite3"))
        self.threads = Threads(8, "site")
        self.store = DatabaseUploads(self.database)
        self.tus = TusUploads(self.store, self.threads, site.terms)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            reply = await self._answer(Request(scope, receive))
            body = b""
        except ClientLeft:
            return
        except Problem as refusal:
            sent = {key.decode(): value.decode() for key, value in refusal.headers}
            reply = Reply(refusal.status, sent)
            body = json.dumps({"code": refusal.code, "detail": refusal.detail}).encode()
        headers = reply.wire()
        if reply.status != 204:
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""}
        )

    async def _answer(self, request: Request) -> Reply:
        _, _, upload_id = request.url.path.partition("/uploads/")
        method = method_of(request)
        if method == "OPTIONS":
            return self.tus.options()
        if not upload_id:
            wanted = self.tus.wanted(request)
            owner = request.headers.get("x-user", "alice")
            return await self.tus.create(
                request, wanted, self.space, folder=FOLDER, owner=owner, url_of=url_of
            )
        upload = await self.tus.find(upload_id)
        if method == "HEAD":
            return await self.tus.head(request, upload, self.space, url_of)
        if method == "PATCH":
            return await self.tus.patch(request, upload, self.space)
        return await self.tus.delete(request, upload, self.space)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.threads.close()
        self.volume.close()
        self.ledger.close()
        self.database.close()
        await send({"type": "lifespan.shutdown.complete"})


def url_of(upload_id: str) -> str:
    """Where an upload is found."""
    return f"/uploads/{upload_id}"


def build(site: Site) -> Callable[..., object]:
    """Return the application; called in the host's process."""
    return App(site)


def main() -> int:
    """Host what the argument describes."""
    told = json.loads(sys.argv[1])
    site = Site(**{**told, "terms": Terms(**told["terms"])})
    options = HttpOptions(listen=[f"127.0.0.1:{site.port}"], body_stall_timeout=30)
    return run([Hosted("site", "tests.vfsproxy.file_site:build", site, options)])


if __name__ == "__main__":
    sys.exit(main())
