"""Drime's API, as far as a place needs it, with the storage beside it (`drime_storage`).

    with DrimeDouble() as drime:
        DrimeClient(api_key=drime.key, api_url=drime.url)
        drime.switches.ranges = False
        drime.api.faults = Faults(rate=0.2)
        drime.counts()["upload"]

The routes are those of pydrime's client. Parts and downloads go to another host, which refuses
whoever shows it the key. For measurements it has a process of its own, `drime_process`.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from .double import Call, Double
from .drime_entries import Account, Refused, Switches, Upload
from .drime_listings import Listings
from .drime_storage import content_of, signature, storage_of
from .tls import Certificate

BASE = "/api/v1"

KINDS: dict[tuple[str, str], str] = {
    ("GET", "/drive/file-entries"): "list",
    ("POST", "/folders"): "folder",
    ("POST", "/uploads"): "upload",
    ("POST", "/s3/multipart/create"): "create",
    ("POST", "/s3/multipart/batch-sign-part-urls"): "sign",
    ("POST", "/s3/multipart/complete"): "complete",
    ("POST", "/s3/multipart/abort"): "abort",
    ("POST", "/s3/entries"): "register",
    ("POST", "/s3/simple/presign"): "presign",
    ("POST", "/file-entries/delete"): "delete",
    ("POST", "/file-entries/restore"): "restore",
    ("POST", "/file-entries/move"): "move",
    ("POST", "/file-entries/duplicate"): "duplicate",
    ("GET", "/me/workspaces"): "workspaces",
    ("GET", "/cli/loggedUser"): "user",
    ("GET", "/user/space-usage"): "space",
}


def kind_of(call: Call) -> str:
    """Return what a request to the API was for."""
    path = call.path.removeprefix(BASE)
    if path.startswith("/file-entries/download/"):
        return "download"
    if re.fullmatch(r"/file-entries/\d+", path):
        return "rename"
    return KINDS.get((call.method, path), "unknown")


class DrimeDouble:
    """Drime on loopback: the API and its storage. A context manager.

    Args:
        certificate: both speak TLS.

    Attributes:
        switches: may be changed at any time.
        keys: those that are accepted; remove one to revoke it.
        account: what is stored.
        api, storage: the two servers, each with faults of its own.
    """

    def __init__(
        self, switches: Switches | None = None, *, certificate: Certificate | None = None
    ) -> None:
        self.switches = switches or Switches()
        self.key = f"key-{secrets.token_hex(8)}"
        self.keys = {self.key}
        self.workspaces = {0, 7}
        self.account = Account(self.switches)
        self._listings = Listings(self.account)
        self.api = Double(self._application(), certificate=certificate)
        self.storage = Double(storage_of(self.account), certificate=certificate)
        self._recent: deque[float] = deque()

    @property
    def fetched(self) -> int:
        """Bytes of downloads that went out, or that a client had asked for."""
        return self.account.fetched

    @property
    def url(self) -> str:
        """The base of the API."""
        return f"{self.api.url}{BASE}"

    def counts(self) -> Counter[str]:
        """Return how many requests to the API came so far, by kind; failed ones too."""
        return Counter(kind_of(call) for call in self.api.calls)

    def forget_calls(self) -> None:
        """Count from here on."""
        self.api.calls.clear()
        self.storage.calls.clear()

    def start(self) -> None:
        """Start both servers, on the same ports as before."""
        self.api.start()
        self.storage.start()

    def kill(self) -> None:
        """Kill both servers."""
        self.api.kill()
        self.storage.kill()

    def restart(self) -> None:
        """Kill both servers and start them again."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self.account.close()

    # -- the API

    def _application(self) -> Starlette:
        handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "list": self._list,
            "folder": self._make_folder,
            "upload": self._upload,
            "create": self._create,
            "sign": self._sign,
            "complete": self._complete,
            "abort": self._abort,
            "register": self._register,
            "presign": self._presign,
            "delete": self._delete,
            "restore": self._restore,
            "move": self._move,
            "duplicate": self._duplicate,
            "workspaces": self._list_workspaces,
            "user": self._user,
            "space": self._space,
        }
        routes = [
            Route(BASE + path, self._guarded(handlers[kind]), methods=[method])
            for (method, path), kind in KINDS.items()
        ]
        routes += [
            Route(f"{BASE}/file-entries/download/{{hash}}", self._guarded(self._download)),
            Route(f"{BASE}/file-entries/{{id:int}}", self._guarded(self._rename), methods=["POST"]),
        ]
        return Starlette(routes=routes)

    def _guarded(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            word, _, key = request.headers.get("Authorization", "").partition(" ")
            if word != "Bearer" or key not in self.keys:
                await _drain(request)
                if self.switches.html_for_strangers:
                    return Response("<html>Sign in</html>", media_type="text/html")
                return JSONResponse({"message": "Unauthenticated."}, 401)
            if (wait := self._limited()) is not None:
                await _drain(request)
                return JSONResponse(
                    {"message": "Too Many Attempts."}, 429, {"Retry-After": str(wait)}
                )
            try:
                return await handler(request)
            except Refused as refused:
                return JSONResponse({"message": str(refused)}, refused.status)

        return guarded

    def _limited(self) -> int | None:
        if self.switches.per_minute is None:
            return None
        now = time.monotonic()
        while self._recent and self._recent[0] < now - 60:
            self._recent.popleft()
        if len(self._recent) >= self.switches.per_minute:
            return self.switches.retry_after
        self._recent.append(now)
        return None

    async def _list(self, request: Request) -> Response:
        workspace = self._workspace(request.query_params.get("workspaceId"))
        return JSONResponse(self._listings.page(request.query_params, workspace))

    async def _make_folder(self, request: Request) -> Response:
        asked = await request.json()
        workspace = self._workspace(asked.get("workspaceId"))
        folder = self.account.make_folder(asked["name"], workspace, asked.get("parentId"))
        return JSONResponse({"status": "success", "folder": folder.shown()}, 200)

    async def _upload(self, request: Request) -> Response:
        fields, name, content = _form(request.headers["Content-Type"], await request.body())
        largest = self.switches.largest_simple
        if largest is not None and len(content) > largest:
            raise Refused(422, f"files above {largest} bytes are uploaded in parts")
        path = self.account.new_file()
        path.write_bytes(content)
        parent = fields.get("parentId")
        entry = self.account.make_file(
            re.split(r"[/\\]", name)[-1],  # as PHP takes it
            self._workspace(fields.get("workspaceId")),
            int(parent) if parent else None,
            [path],
        )
        return JSONResponse({"status": "success", "fileEntry": entry.shown()}, 201)

    async def _create(self, request: Request) -> Response:
        asked = await request.json()
        key = f"{secrets.token_hex(8)}/{secrets.token_hex(16)}"
        upload = Upload(
            key,
            asked["filename"],
            self._workspace(asked.get("workspaceId")),
            asked.get("parentId"),
        )
        number = secrets.token_hex(12)
        self._begin(number, upload)
        return JSONResponse({"uploadId": number, "key": key})

    async def _presign(self, request: Request) -> Response:
        asked = await request.json()
        key = f"{secrets.token_hex(8)}/{secrets.token_hex(16)}"
        upload = Upload(
            key, asked["filename"], self._workspace(asked.get("workspaceId")), asked.get("parentId")
        )
        number = secrets.token_hex(12)
        self._begin(number, upload)
        return JSONResponse({"url": f"{self.storage.url}/whole/{number}?signature=1", "key": key})

    def _begin(self, number: str, upload: Upload) -> None:
        self.account.uploads[number] = upload
        self.account.by_file_name[_file_name(upload.key)] = upload

    def _open_upload(self, asked: Any) -> Upload:
        upload = self.account.uploads.get(asked["uploadId"])
        if upload is None or upload.key != asked["key"]:
            raise Refused(404, "There is no such upload")
        return upload

    async def _sign(self, request: Request) -> Response:
        asked = await request.json()
        self._open_upload(asked)
        numbers = asked["partNumbers"]
        if not 1 <= len(numbers) <= 10:
            raise Refused(422, "The part numbers must be 1 to 10.")
        host = f"{self.storage.url}/part/{asked['uploadId']}"
        urls = [{"partNumber": n, "url": f"{host}/{n}?signature=1"} for n in numbers]
        return JSONResponse({"urls": urls})

    async def _complete(self, request: Request) -> Response:
        asked = await request.json()
        upload = self._open_upload(asked)
        content = []
        for number, part in enumerate(asked["parts"], 1):
            path, tag = upload.parts.get(part["PartNumber"], (None, None))
            if path is None or part["ETag"].strip('"') != tag or part["PartNumber"] != number:
                raise Refused(422, "One of the parts is not what was sent.")
            if number < len(asked["parts"]) and path.stat().st_size < 5 << 20:
                raise Refused(422, "EntityTooSmall")
            content.append(path)
        upload.done = content
        del self.account.uploads[asked["uploadId"]]
        return JSONResponse({"location": f"{self.storage.url}/{upload.key}"})

    async def _abort(self, request: Request) -> Response:
        asked = await request.json()
        upload = self._open_upload(asked)
        del self.account.uploads[asked["uploadId"]]
        del self.account.by_file_name[_file_name(upload.key)]
        return JSONResponse({"status": "success"})

    async def _register(self, request: Request) -> Response:
        asked = await request.json()
        if self.switches.need_extension and not asked.get("clientExtension"):
            raise Refused(422, "The client extension field is required.")
        upload = self.account.by_file_name.get(asked["filename"])
        if upload is None or upload.done is None:
            raise Refused(422, "There is no such object.")
        entry = self.account.make_file(
            asked["clientName"],
            self._workspace(asked.get("workspaceId")),
            asked.get("parentId"),
            upload.done,
            file_name=asked["filename"],
            extension=asked.get("clientExtension"),
        )
        return JSONResponse({"status": "success", "fileEntry": entry.shown()}, 201)

    async def _download(self, request: Request) -> Response:
        entry = self.account.by_hash(request.path_params["hash"])
        if self.switches.redirect_downloads:
            signed = signature(self.switches.link_seconds)
            return RedirectResponse(f"{self.storage.url}/object/{entry.id}?{signed}", 302)
        return content_of(request, entry, self.account)

    async def _delete(self, request: Request) -> Response:
        asked = await request.json()
        ids = [int(number) for number in asked["entryIds"]]
        self.account.delete(ids, forever=bool(asked.get("deleteForever")))
        return JSONResponse({"status": "success"})

    async def _restore(self, request: Request) -> Response:
        self.account.restore([int(number) for number in (await request.json())["entryIds"]])
        return JSONResponse({"status": "success"})

    async def _move(self, request: Request) -> Response:
        asked = await request.json()
        moved = self.account.move([*map(int, asked["entryIds"])], asked.get("destinationId"))
        return JSONResponse({"status": "success", "entries": [each.shown() for each in moved]})

    async def _duplicate(self, request: Request) -> Response:
        asked = await request.json()
        made = self.account.duplicate([*map(int, asked["entryIds"])], asked.get("destinationId"))
        return JSONResponse({"status": "success", "entries": [each.shown() for each in made]})

    async def _rename(self, request: Request) -> Response:
        asked = await request.json()
        entry = self.account.rename(request.path_params["id"], asked["name"])
        return JSONResponse({"status": "success", "fileEntry": entry.shown()})

    async def _list_workspaces(self, _request: Request) -> Response:
        return JSONResponse(
            {"workspaces": [{"id": n, "name": f"workspace {n}"} for n in self.workspaces if n]}
        )

    async def _user(self, _request: Request) -> Response:
        return JSONResponse({"user": {"id": 1, "email": "owner@example.org"}})

    async def _space(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "used": self.account.used,
                "available": self.switches.capacity,
                "status": "success",
            }
        )

    def _workspace(self, asked: Any) -> int:
        number = int(asked or 0)
        if number not in self.workspaces:
            raise Refused(403, "You are not a member of this workspace.")
        return number


def _file_name(key: str) -> str:
    return key.rpartition("/")[2]


async def _drain(request: Request) -> None:
    async for _ in request.stream():
        pass


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], str, memoryview]:
    """Return a form's fields, the file's name and its bytes (RFC 7578)."""
    found = re.search(r"boundary=\"?([^\";]+)", content_type)
    if found is None:
        raise Refused(422, "no form")
    boundary = b"--" + found[1].encode()
    fields: dict[str, str] = {}
    name: str | None = None
    content = memoryview(b"")
    at = body.find(boundary)
    while (head := body.find(b"\r\n\r\n", at)) >= 0:
        text = body[at + len(boundary) : head].decode()
        at = body.find(b"\r\n" + boundary, head + 2)
        if at < 0:
            raise Refused(422, "the form does not end")
        value = memoryview(body)[head + 4 : at]
        field = re.search(r'[; ]name="([^"]*)"', text)
        file = re.search(r'filename="([^"]*)"', text)
        if field is not None and field[1] == "file" and file is not None:
            name, content = file[1], value
        elif field is not None:
            fields[field[1]] = bytes(value).decode()
        at += 2
    if name is None:
        raise Refused(422, "The file field is required.")
    return fields, name, content
