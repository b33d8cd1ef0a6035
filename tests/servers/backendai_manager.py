"""The little of Backend.AI's Manager that its client's `vfolder` commands need.

Names and answers as the client sends and reads them (backend.ai-client 26.9, `func/vfolder.py` and
`cli/vfolder.py`). What it is asked of files it asks in turn of a gateway's API for managers, and
sends clients with a token to the gateway's API for clients, as the real one does. It knows one
user, and keeps nothing when it ends.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from .vfs_gateway import VfsGateway

VOLUME = "main"
HOST = f"local:{VOLUME}"
ACCESS_KEY = "AKIAOFTHETESTS000000"
SECRET_KEY = "a-secret-that-signs-the-requests-of-tests"


class Refused(Exception):
    """An answer other than the one that was hoped for."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status
        self.document = {"type": "about:blank", "title": title}


@dataclass
class _Folder:
    id: str
    name: str
    status: str = "ready"
    created: str = "2026-01-01T00:00:00+00:00"


@dataclass
class _Asked:
    """A request: the path's parts after `/folders`, the JSON body and the query."""

    parts: list[str]
    body: dict[str, Any]
    query: dict[str, list[str]] = field(default_factory=dict)


class BackendAiManager:
    """A context manager that serves on a free port.

    Attributes:
        storage_url: of the API for clients, as it is told to them; a proxy's, where one is tested.
        tokens: the tokens that were given out, with the URL each is for.
    """

    def __init__(self, gateway: VfsGateway, *, storage_url: str | None = None) -> None:
        self.storage_url = storage_url or gateway.url
        self.tokens: list[tuple[str, str]] = []
        self._scope = f"user:{uuid.uuid4()}"
        self._folders: dict[str, _Folder] = {}
        self._storage = gateway.manager()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What the client reads its settings from."""
        return {
            "BACKEND_ENDPOINT": self.url,
            "BACKEND_ENDPOINT_TYPE": "api",
            "BACKEND_ACCESS_KEY": ACCESS_KEY,
            "BACKEND_SECRET_KEY": SECRET_KEY,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()
        self._storage.close()

    def reference(self, name: str) -> str:
        """Return what the storage calls a folder."""
        return f"{self._scope}/{self._named(name).id}"

    # -- what is asked

    def answer(self, method: str, asked: _Asked) -> Any:
        """Answer a request about folders. Raises Refused."""
        match method, asked.parts:
            case "GET", []:
                return [self._document(folder) for folder in self._folders.values()]
            case "POST", []:
                return self._create(asked.body["name"])
            case "DELETE", []:
                self._of(asked.body["id"]).status = "delete-pending"
                return None
            case "GET", ["_", "hosts"]:
                return {"default": HOST, "allowed": [HOST]}
            case "GET", ["_", "id"]:
                return {"id": self._named(asked.body["name"]).id}
            case "POST", ["restore-from-trash-bin"]:
                self._of(asked.body["id"]).status = "ready"
                return None
            case "POST", ["delete-from-trash-bin"]:
                folder = self._of(asked.body["id"])
                self._ask("POST", "folder/delete", folder)
                del self._folders[folder.id]
                return None
            case "GET", [key]:
                return self._info(self._of(key))
            case _, [key, what] if handler := self._about_files().get((method, what)):
                return handler(self._of(key), asked)
        raise Refused(404, f"nothing here answers {method} /folders/{'/'.join(asked.parts)}")

    def _about_files(self) -> dict[tuple[str, str], Callable[[_Folder, _Asked], Any]]:
        return {
            ("POST", "request-upload"): self._upload,
            ("POST", "request-download"): self._download,
            ("GET", "files"): self._list,
            ("POST", "mkdir"): self._mkdir,
            ("POST", "rename-file"): self._rename,
            ("POST", "move-file"): self._move,
            ("DELETE", "delete-files"): self._delete,
        }

    def _create(self, name: str) -> dict[str, Any]:
        if any(folder.name == name for folder in self._folders.values()):
            raise Refused(409, "there is a folder of that name")
        folder = _Folder(uuid.uuid4().hex, name)
        self._ask("POST", "folder/create", folder)
        self._folders[folder.id] = folder
        return self._document(folder)

    def _info(self, folder: _Folder) -> dict[str, Any]:
        used = self._ask("GET", "folder/usage", folder)
        return {
            **self._document(folder),
            "numFiles": used["file_count"],
            "used_bytes": used["used_bytes"],
        }

    def _upload(self, folder: _Folder, asked: _Asked) -> dict[str, str]:
        told = self._file("upload", folder, relpath=asked.body["path"], size=asked.body["size"])
        return self._transfer("upload", told["token"])

    def _download(self, folder: _Folder, asked: _Asked) -> dict[str, str]:
        archive = asked.body.get("archive", False)
        told = self._file("download", folder, relpath=asked.body["path"], archive=archive)
        return self._transfer("download", told["token"])

    def _transfer(self, what: str, token: str) -> dict[str, str]:
        url = f"{self.storage_url}/{what}"
        self.tokens.append((url, token))
        return {"token": token, "url": url}

    def _list(self, folder: _Folder, asked: _Asked) -> dict[str, Any]:
        told = self._file("list", folder, relpath=asked.query.get("path", ["."])[0])
        return {
            "items": [
                {
                    "name": item["name"],
                    "type": item["type"],
                    "size": item["stat"]["size"],
                    "mode": oct(item["stat"]["mode"]),
                    "created": item["stat"]["created"],
                    "modified": item["stat"]["modified"],
                }
                for item in told["items"]
            ]
        }

    def _mkdir(self, folder: _Folder, asked: _Asked) -> Any:
        body = asked.body
        given = {key: body[key] for key in ("parents", "exist_ok") if body.get(key) is not None}
        return self._file("mkdir", folder, relpath=body["path"], **given)

    def _rename(self, folder: _Folder, asked: _Asked) -> Any:
        body = asked.body
        self._file("rename", folder, relpath=body["target_path"], new_name=body["new_name"])
        return {}

    def _move(self, folder: _Folder, asked: _Asked) -> Any:
        body = asked.body
        self._file("move", folder, src_relpath=body["src"], dst_relpath=body["dst"])
        return {}

    def _delete(self, folder: _Folder, asked: _Asked) -> Any:
        body = asked.body
        self._file("delete", folder, relpaths=body["files"], recursive=body["recursive"])
        return {}

    # -- of the gateway

    def _file(self, what: str, folder: _Folder, **body: Any) -> Any:
        return self._ask("POST", f"folder/file/{what}", folder, **body)

    def _ask(self, method: str, path: str, folder: _Folder, **body: Any) -> Any:
        which = {"volume": VOLUME, "vfid": f"{self._scope}/{folder.id}"}
        told = self._storage.request(method, f"/{path}", json={**which, **body})
        if told.is_error:
            raise Refused(told.status_code, told.json()["detail"])
        return told.json() if told.content else None

    # -- what it knows itself

    def _of(self, key: str) -> _Folder:
        try:
            return self._folders[uuid.UUID(key).hex]
        except (KeyError, ValueError):
            raise Refused(404, "there is no such folder") from None

    def _named(self, name: str) -> _Folder:
        for folder in self._folders.values():
            if folder.name == name:
                return folder
        raise Refused(404, "there is no such folder")

    def _document(self, folder: _Folder) -> dict[str, Any]:
        return {
            "id": folder.id,
            "name": folder.name,
            "host": HOST,
            "status": folder.status,
            "permission": "rw",
            "ownership_type": "user",
            "type": "user",
            "is_owner": True,
            "user": self._scope.partition(":")[2],
            "group": None,
            "creator": "user@example.org",
            "usage_mode": "general",
            "cloneable": True,
            "created_at": folder.created,
        }


def _handler(manager: BackendAiManager) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            parts = [part for part in url.path.split("/") if part]
            try:
                if not parts:
                    self._answer(200, {"version": "v9.20250722", "manager": "26.9.6"})
                    return
                signed = self.headers.get("Authorization", "")
                if parts[0] != "folders" or f"credential={ACCESS_KEY}:" not in signed:
                    raise Refused(401, "the request is not signed by a key that is known")
                asked = _Asked(parts[1:], json.loads(body or b"{}"), parse_qs(url.query))
                self._answer(200, manager.answer(self.command, asked))
            except Refused as refused:
                self._answer(refused.status, refused.document)

        def _answer(self, status: int, document: Any) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(204 if document is None else status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler
