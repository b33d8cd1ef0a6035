"""Dropbox's HTTP API as a client of files needs it, from its public documentation.

    with DropboxDouble() as double:               # a `double.Double`: faults, delays, calls
        double.service.refresh_token, .app_key     # what the real SDK signs in with

All of Dropbox's hosts are this one. Kept are the rules that clients stand on: names are compared
without case and shown as first written; uploads make their folders; `add` refuses another content
and, with strict_conflict, any; a session takes bytes at its own offset alone; removing a folder
removes all beneath it; a revision can be read after it was replaced; access tokens live shortly.
(https://www.dropbox.com/developers/documentation/http/documentation)
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from .double import Double, Receive, Scope, Send, whole_body
from .dropbox_refusals import (
    Refused,
    checked,
    conflict,
    not_authenticated,
    route_error,
    segments,
    tagged,
    write_error,
)

BLOCK = 4 << 20
LARGEST_REQUEST = 150 << 20
PAGE = 2000
TOKEN_LIFE = 14_400
"""Seconds that an access token is good for."""

_ROOT = ""


@dataclass
class File:
    """A file of a folder."""

    name: str
    data: bytes
    rev: str
    number: str
    modified: float


@dataclass
class Folder:
    """A folder; `entries` by their names in lower case."""

    name: str
    number: str
    entries: dict[str, File | Folder] = field(default_factory=dict)


class Service:
    """The application. Attributes may be changed at any time.

    Attributes:
        refresh_token, app_key: what a client signs in with.
        revoked: the user has withdrawn the app's grant.
        room: bytes that the account may hold.
        busy: uploads and removals are refused as too many at a time.
    """

    def __init__(self) -> None:
        self.root = Folder(_ROOT, "id:root")
        self.refresh_token = secrets.token_urlsafe(24)
        self.app_key = secrets.token_hex(8)
        self.revoked = False
        self.room = 1 << 40
        self.busy = False
        self._tokens: dict[str, float] = {}
        self._codes: dict[str, str] = {}
        self._revisions: dict[str, File] = {}
        self._sessions: dict[str, bytearray] = {}
        self._cursors: dict[str, tuple[Folder, list[str], str, int]] = {}
        self._numbers = 0
        self._used = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        if body is None:
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        sent: dict[str, str] = {"content-type": "application/json"}
        status = 200
        try:
            query = scope["query_string"].decode()
            answer = self._answer(scope["path"], query, headers, body, sent)
            status = 206 if "content-range" in sent else 200
        except Refused as refusal:
            status, sent = refusal.status, {"content-type": "application/json"}
            answer = _encode(refusal.error)
        sent["content-length"] = str(len(answer))
        sent["x-dropbox-request-id"] = secrets.token_hex(8)
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": answer})

    def _answer(
        self, path: str, query: str, headers: dict[str, str], body: bytes, sent: dict[str, str]
    ) -> bytes:
        if path == "/oauth2/token":
            return self._token(body)
        if path == "/oauth2/authorize":
            return self._agree(query)
        self._authenticate(headers)
        route = path.removeprefix("/2/").replace("/", "_")
        if route == "files_download":
            return self._download(_argument(headers), headers, sent)
        content = {
            "files_upload": self._upload,
            "files_upload_session_start": self._start,
            "files_upload_session_append_v2": self._append,
            "files_upload_session_finish": self._finish,
        }
        if route in content:
            if len(body) > LARGEST_REQUEST:
                raise Refused(413, "payload too large")
            self._let_write()
            return _encode(content[route](_argument(headers), body))
        calls = {
            "files_list_folder": self._list,
            "files_list_folder_continue": self._list_on,
            "files_get_metadata": self._tell,
            "files_create_folder_v2": self._make_folder,
            "files_delete_v2": self._delete,
            "files_move_v2": self._move,
            "files_copy_v2": self._copy,
            "users_get_space_usage": self._usage,
        }
        if route not in calls:
            raise Refused(404, "unknown route")
        return _encode(calls[route](json.loads(body or b"null") or {}))

    # -- who asks

    def _agree(self, query: str) -> bytes:
        """The page on which a person agrees; a test takes the code out of the answer."""
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if asked.get("client_id") != self.app_key or asked.get("response_type") != "code":
            raise Refused(400, {"error": "invalid client_id"})
        if asked.get("token_access_type") != "offline":
            raise Refused(400, {"error": "a grant that lasts was not asked for"})
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked["code_challenge"]
        return _encode({"code": code})

    def _token(self, body: bytes) -> bytes:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if form.get("grant_type") == "authorization_code":
            challenge = self._codes.pop(form.get("code", ""), None)
            digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            good = challenge == base64.urlsafe_b64encode(digest).decode().rstrip("=")
            more = {"refresh_token": self.refresh_token, "account_id": "dbid:1", "uid": "1"}
        else:
            good = form.get("refresh_token") == self.refresh_token and not self.revoked
            more = {}
        if not good or form.get("client_id") != self.app_key:
            raise Refused(400, {"error": "invalid_grant", "error_description": "it is invalid"})
        token = secrets.token_urlsafe(24)
        self._tokens[token] = time.time() + TOKEN_LIFE
        answer = {"access_token": token, "expires_in": TOKEN_LIFE, "token_type": "bearer"}
        return _encode({**answer, **more})

    def expire_tokens(self) -> None:
        """End the life of every access token; the refresh token stays good."""
        self._tokens = dict.fromkeys(self._tokens, 0.0)

    def _authenticate(self, headers: dict[str, str]) -> None:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if self.revoked or token not in self._tokens:
            raise not_authenticated("invalid_access_token")
        if self._tokens[token] < time.time():
            raise not_authenticated("expired_access_token")

    def _let_write(self) -> None:
        if self.busy:
            reason = {"reason": tagged("too_many_write_operations"), "retry_after": 1}
            raise Refused(429, {"error_summary": "too_many_write_operations/", "error": reason})

    # -- finding

    def _find(self, path: str) -> File | Folder | None:
        node: File | Folder | None = self.root
        for segment in segments(path):
            if not isinstance(node, Folder):
                return None
            node = node.entries.get(segment.lower())
        return node

    def _existing(self, path: str, *, wrapped: str = "path") -> File | Folder:
        node = self._find(path)
        if node is None:
            raise route_error(wrapped, "not_found")
        return node

    def _parent(self, path: str, *, wrapped: str = "path", reason: bool = False) -> Folder:
        """Return the folder of a path, made with its parents."""
        folder = self.root
        for segment in segments(path)[:-1]:
            child = folder.entries.get(segment.lower())
            if child is None:
                child = folder.entries[segment.lower()] = Folder(segment, self._number())
            if isinstance(child, File):
                raise conflict(wrapped, "file_ancestor", reason=reason)
            folder = child
        return folder

    def _number(self) -> str:
        self._numbers += 1
        return f"id:{self._numbers:020}"

    # -- routes

    def _list(self, argument: dict[str, object]) -> object:
        path = str(argument["path"])
        folder = self._existing(path)
        if isinstance(folder, File):
            raise route_error("path", "not_folder")
        return self._page(
            folder, list(folder.entries), path, int(str(argument.get("limit") or PAGE))
        )

    def _list_on(self, argument: dict[str, object]) -> object:
        found = self._cursors.pop(str(argument["cursor"]), None)
        if found is None:
            raise route_error("reset")
        return self._page(*found)

    def _page(self, folder: Folder, names: list[str], path: str, most: int) -> object:
        most = min(most, PAGE)
        cursor = secrets.token_hex(16)
        if rest := names[most:]:
            self._cursors[cursor] = (folder, rest, path, most)
        here = [folder.entries[name] for name in names[:most] if name in folder.entries]
        entries = [self._metadata(node, f"{path}/{node.name}") for node in here]
        return {"entries": entries, "cursor": cursor, "has_more": bool(rest)}

    def _tell(self, argument: dict[str, object]) -> object:
        path = str(argument["path"])
        if not path:
            raise Refused(400, "Error in call: the root folder is unsupported.")
        return self._metadata(self._existing(path), path)

    def _make_folder(self, argument: dict[str, object]) -> object:
        self._let_write()
        path = checked(str(argument["path"]))
        parent = self._parent(path)
        last = segments(path)[-1]
        there = parent.entries.get(last.lower())
        if there is not None:
            raise conflict("path", "folder" if isinstance(there, Folder) else "file")
        made = parent.entries[last.lower()] = Folder(last, self._number())
        return {"metadata": self._metadata(made, path)}

    def _delete(self, argument: dict[str, object]) -> object:
        self._let_write()
        path = str(argument["path"])
        node = self._existing(path, wrapped="path_lookup")
        rev = argument.get("parent_rev")
        if rev is not None and (not isinstance(node, File) or node.rev != rev):
            raise conflict("path_write", "file")
        del self._parent(path).entries[segments(path)[-1].lower()]
        self._used -= _size(node)
        return {"metadata": self._metadata(node, path)}

    def _move(self, argument: dict[str, object]) -> object:
        return self._relocate(argument, keep=False)

    def _copy(self, argument: dict[str, object]) -> object:
        return self._relocate(argument, keep=True)

    def _relocate(self, argument: dict[str, object], *, keep: bool) -> object:
        self._let_write()
        source, target = str(argument["from_path"]), checked(str(argument["to_path"]))
        node = self._existing(source, wrapped="from_lookup")
        there = self._find(target)
        if there is not None and there is not node:
            raise conflict("to", "folder" if isinstance(there, Folder) else "file")
        if there is node and (keep or source == target):
            raise route_error("duplicated_or_nested_paths")
        parent = self._parent(target, wrapped="to")
        last = segments(target)[-1]
        if keep:
            assert isinstance(node, File), "copies of folders are not offered"
            node = self._file(last, node.data)
            self._used += len(node.data)
        else:
            del self._parent(source).entries[segments(source)[-1].lower()]
            node.name = last
        parent.entries[last.lower()] = node
        return {"metadata": self._metadata(node, target)}

    def _usage(self, _argument: dict[str, object]) -> object:
        return {
            "used": self._used,
            "allocation": {".tag": "individual", "allocated": self.room},
        }

    def _download(
        self, argument: dict[str, object], headers: dict[str, str], sent: dict[str, str]
    ) -> bytes:
        path = str(argument["path"])
        node: File | Folder | None
        if path.startswith("rev:"):
            node = self._revisions.get(path)
            if node is None:
                raise route_error("path", "not_found")
        else:
            node = self._existing(path)
        if isinstance(node, Folder):
            raise route_error("path", "not_file")
        sent["content-type"] = "application/octet-stream"
        sent["dropbox-api-result"] = json.dumps(self._metadata(node, path))
        sent["etag"] = f'W/"{node.rev}"'
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("range", ""))
        size = len(node.data)
        if asked is None:
            return node.data
        first, last = asked.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if start >= size:
            raise Refused(416, "range not satisfiable")
        sent["content-range"] = f"bytes {start}-{end - 1}/{size}"
        return node.data[start:end]

    def _upload(self, argument: dict[str, object], body: bytes) -> object:
        _check_hash(argument, body)
        return self._commit(argument, body, reason=True)

    def _start(self, argument: dict[str, object], body: bytes) -> object:
        _check_hash(argument, body)
        number = f"pid_upload_session:{secrets.token_urlsafe(24)}"
        self._sessions[number] = bytearray(body)
        return {"session_id": number}

    def _append(self, argument: dict[str, object], body: bytes) -> object:
        session = self._session(argument)
        _check_hash(argument, body)
        session += body
        return None

    def _finish(self, argument: dict[str, object], body: bytes) -> object:
        session = self._session(argument, wrapped=True)
        _check_hash(argument, body)
        commit = argument["commit"]
        assert isinstance(commit, dict)
        done = self._commit(commit, bytes(session) + body, reason=False)
        del self._sessions[str(argument["cursor"]["session_id"])]  # type: ignore[index]
        return done

    def _session(self, argument: dict[str, object], *, wrapped: bool = False) -> bytearray:
        cursor = argument["cursor"]
        assert isinstance(cursor, dict)
        session = self._sessions.get(cursor["session_id"])
        problem: dict[str, object] | None = None
        if session is None:
            problem = {".tag": "not_found"}
        elif cursor["offset"] != len(session):
            problem = {".tag": "incorrect_offset", "correct_offset": len(session)}
        if problem is not None:
            if wrapped:
                problem = {".tag": "lookup_failed", "lookup_failed": problem}
            raise Refused(409, {"error_summary": f"{problem['.tag']}/", "error": problem})
        assert session is not None
        return session

    def _commit(self, argument: dict[str, object], data: bytes, *, reason: bool) -> object:
        path = checked(str(argument["path"]), reason=reason)
        parent = self._parent(path, reason=reason)
        last = segments(path)[-1]
        there = parent.entries.get(last.lower())
        mode = argument.get("mode") or "add"
        tag = mode[".tag"] if isinstance(mode, dict) else mode
        if isinstance(there, Folder):
            raise conflict("path", "folder", reason=reason)
        if there is not None and tag == "add":
            if argument.get("strict_conflict") or there.data != data:
                raise conflict("path", "file", reason=reason)
            return self._metadata(there, path)
        if self._used + len(data) > self.room:
            raise write_error("path", "insufficient_space", reason=reason)
        made = self._file(last if there is None else there.name, data)
        self._used += len(data) - (0 if there is None else len(there.data))
        parent.entries[last.lower()] = made
        return self._metadata(made, path)

    def _file(self, name: str, data: bytes) -> File:
        made = File(name, data, f"{secrets.randbits(60):015x}", self._number(), time.time())
        self._revisions[f"rev:{made.rev}"] = made
        return made

    def _metadata(self, node: File | Folder, path: str) -> dict[str, object]:
        told: dict[str, object] = {
            "name": node.name,
            "id": node.number,
            "path_lower": path.lower(),
            "path_display": path,
        }
        if isinstance(node, Folder):
            return {".tag": "folder", **told}
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(node.modified))
        return {
            ".tag": "file",
            **told,
            "rev": node.rev,
            "size": len(node.data),
            "client_modified": stamp,
            "server_modified": stamp,
            "is_downloadable": True,
            "content_hash": content_hash(node.data),
        }


class DropboxDouble(Double):
    """The service on a port of loopback."""

    def __init__(self) -> None:
        self.service = Service()
        super().__init__(self.service)

    @property
    def options(self) -> dict[str, str]:
        """What a place on it, or a provider, signs in with."""
        return {
            "endpoint": self.url,
            "refresh_token": self.service.refresh_token,
            "app_key": self.service.app_key,
        }


def content_hash(data: bytes) -> str:
    """Return Dropbox's hash: of the hashes of each 4 MiB.
    (https://www.dropbox.com/developers/reference/content-hash)"""
    blocks = [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]
    return hashlib.sha256(b"".join(hashlib.sha256(b).digest() for b in blocks)).hexdigest()


def _check_hash(argument: dict[str, object], body: bytes) -> None:
    said = argument.get("content_hash")
    if said is not None and said != content_hash(body):
        raise route_error("content_hash_mismatch")


def _size(node: File | Folder) -> int:
    if isinstance(node, File):
        return len(node.data)
    return sum(map(_size, node.entries.values()))


def _argument(headers: dict[str, str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(headers["dropbox-api-arg"])
    return found


def _encode(value: object) -> bytes:
    return json.dumps(value).encode()
