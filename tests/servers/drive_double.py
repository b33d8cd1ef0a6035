"""Google Drive's API as a client of files needs it, from its documentation.

    with DriveDouble() as double:                # a `double.Double`: faults, delays, calls
        double.service.refresh_token, .client_id, .client_secret     # what the real library signs
        double.service.account(double.url)                            # in with, one or the other

Kept are the rules that clients stand on: names are not unique; the search for a name does not look
at case; ids can be had before they are used, and are refused the second time; a folder is removed
with all beneath it, and what lies in one in the trash counts as trashed; a file that gets new bytes
keeps its id; what lies in the trash can still be read.
(https://developers.google.com/workspace/drive/api/reference/rest/v3)
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .double import Double
from .google_double import (
    GoogleService,
    Refused,
    Reply,
    Request,
    Session,
    answer,
    parts_of,
    ranged,
)

FOLDER = "application/vnd.google-apps.folder"
LARGEST_MULTIPART = 5_000_000
MOST_RESULTS = 1000


@dataclass
class File:
    """A file or a folder."""

    id: str
    name: str
    kind: str
    parent: str
    data: bytes
    created: float
    modified: float
    trashed: bool = False


class Service(GoogleService):
    """See the module.

    Attributes:
        files: by their ids; "root" is the account's own folder.
        room: bytes that the account may hold.
        limited: how many requests are refused as too many, with status 403.
        may_delete: whether files may be deleted for ever.
        tells_hashes: whether downloads come with hashes.
        most: entries of a page of a list, whatever is asked for.
        lag: seconds for which a new file is in no list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, File] = {}
        self.room = 1 << 40
        self.limited = 0
        self.may_delete = True
        self.tells_hashes = False
        self.lag = 0.0
        self.most = MOST_RESULTS
        self._children: dict[str, dict[str, None]] = {}
        self._of_name: dict[tuple[str, str], dict[str, None]] = {}
        self._used = 0
        self._handed_out: set[str] = set()
        self._lists: dict[str, list[str]] = {}
        self._latest = 0.0
        self.add_drive("root")

    def add_drive(self, number: str) -> None:
        """Make a drive of that id."""
        now = time.time()
        self.files[number] = File(number, "Drive", FOLDER, "", b"", now, now)
        self._children[number] = {}

    def inside(self, folder: File) -> list[File]:
        """Return what lies in a folder."""
        return [self.files[number] for number in self._children[folder.id]]

    def folder(self, path: str) -> File:
        """Return a folder of the account's own drive."""
        at = self.files["root"]
        for name in path.split("/"):
            (at,) = (file for file in self.inside(at) if file.name == name)
        return at

    def route(self, request: Request) -> Reply:
        if self.limited > 0:
            self.limited -= 1
            raise Refused(403, "userRateLimitExceeded", "User Rate Limit Exceeded")
        method, path = request.method, request.path
        upload = re.fullmatch(r"/upload/drive/v3/files(?:/([^/]+))?", path)
        if upload is not None:
            return self._upload(request, upload[1])
        if path == "/drive/v3/about":
            told = {"limit": str(self.room), "usage": str(self._used)}
            return answer({"storageQuota": told})
        if path == "/drive/v3/files/generateIds":
            ids = [secrets.token_urlsafe(24) for _ in range(int(request.query["count"]))]
            self._handed_out.update(ids)
            return answer({"ids": ids, "space": "drive"})
        if path == "/drive/v3/files":
            if method == "POST":
                return answer(self._show(self._create(json.loads(request.body), b"")))
            return self._list(request)
        found = re.fullmatch(r"/drive/v3/files/([^/]+)(/copy)?", path)
        if found is None:
            raise Refused(404, "notFound", "Not Found")
        file = self._there(found[1])
        if found[1] == "root":  # to a scope that sees only what the app has made
            raise Refused(404, "notFound", "File not found: root.")
        if found[2]:
            about = {"name": file.name, "parents": [file.parent], "mimeType": file.kind}
            return answer(self._show(self._create(about | json.loads(request.body), file.data)))
        return self._one(request, file)

    def _one(self, request: Request, file: File) -> Reply:
        match request.method:
            case "GET" if request.query.get("alt") == "media":
                if file.kind.startswith("application/vnd.google-apps."):
                    raise Refused(403, "fileNotDownloadable")
                status, data, headers = ranged(file.data, request.headers.get("range"))
                if self.tells_hashes:
                    headers["x-goog-hash"] = f"md5={hash(file.data)}"
                return Reply(status, {"content-type": file.kind, **headers}, data)
            case "GET":
                return answer(self._show(file))
            case "PATCH":
                about = json.loads(request.body or b"{}")
                file.trashed = bool(about.get("trashed", file.trashed))
                return answer(self._show(file))
            case "DELETE":
                if not self.may_delete:
                    raise Refused(
                        403, "insufficientFilePermissions",
                        "The user does not have sufficient permissions for this file.",
                    )  # fmt: skip
                self._remove(file)
                return Reply(204)
        raise Refused(405, "methodNotAllowed")

    # -- the tree

    def _there(self, number: str) -> File:
        if number not in self.files:
            raise Refused(404, "notFound", f"File not found: {number}.")
        return self.files[number]

    def _in_trash(self, file: File) -> bool:
        at: File | None = file
        while at is not None:
            if at.trashed:
                return True
            at = self.files.get(at.parent)
        return False

    def _remove(self, file: File) -> None:
        for child in [*self._children.pop(file.id, ())]:
            self._remove(self.files[child])
        del self.files[file.id]
        self._used -= len(file.data)
        self._children.get(file.parent, {}).pop(file.id, None)
        del self._of_name[file.parent, file.name.lower()][file.id]

    def _create(self, about: Mapping[str, object], data: bytes) -> File:
        self._check_new(about)
        parents = about.get("parents") or ["root"]
        assert isinstance(parents, list)
        self._require_room(len(data))
        number = str(about.get("id") or secrets.token_urlsafe(24))
        # Two files have never the same time: Drive's are in milliseconds.
        self._latest = max(time.time(), self._latest + 0.001)
        kind = str(about.get("mimeType") or "application/octet-stream")
        parent = str(parents[0])
        made = File(number, str(about["name"]), kind, parent, data, self._latest, self._latest)
        self.files[number] = made
        self._used += len(data)
        self._children[parent][number] = None
        self._of_name.setdefault((parent, made.name.lower()), {})[number] = None
        if kind == FOLDER:
            self._children[number] = {}
        return made

    def _check_new(self, about: Mapping[str, object]) -> None:
        number = about.get("id")
        if number is not None and number in self.files:
            raise Refused(409, "fileIdInUse", "A file already exists with the provided ID.")
        if number is not None and number not in self._handed_out:
            raise Refused(400, "invalid", "The provided file ID is not usable.")
        parents = about.get("parents") or ["root"]
        assert isinstance(parents, list)
        if self._there(str(parents[0])).kind != FOLDER:
            raise Refused(403, "parentNotAFolder", "The specified parent is not a folder.")

    def _require_room(self, size: int) -> None:
        if self._used + size > self.room:
            raise Refused(
                403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded."
            )

    # -- lists

    def _list(self, request: Request) -> Reply:
        query = request.query
        token = query.get("pageToken")
        if token is None:
            found = [file.id for file in self._matching(query["q"])]
        else:
            found = self._lists.pop(token)
        most = min(int(query.get("pageSize", 100)), self.most)
        here, rest = found[:most], found[most:]
        fields = re.search(r"files\(([^)]*)\)", query.get("fields", ""))
        wanted = fields[1].split(",") if fields else ["kind", "id", "name", "mimeType"]
        shown = [
            {key: value for key, value in self._show(self.files[each]).items() if key in wanted}
            for each in here
            if each in self.files
        ]
        told: dict[str, object] = {"kind": "drive#fileList", "files": shown}
        if rest:
            told["nextPageToken"] = secrets.token_hex(16)
            self._lists[str(told["nextPageToken"])] = rest
        return answer(told)

    def _matching(self, query: str) -> Iterator[File]:
        parents = re.findall(rf"{_TEXT} in parents", query)
        rest = re.sub(rf"\((?:{_TEXT} in parents(?: or )?)+\)", "", query)
        wanted = {key: _plain(value) for key, value in re.findall(rf"(\w+) = {_TEXT}", rest)}
        trashed = re.search(r"trashed = (true|false)", rest)
        known = len(wanted) + (trashed is not None)
        if rest.count(" and ") != known or not parents:
            raise Refused(400, "invalid", f"Invalid Value: {query}")
        seen = time.time() - self.lag
        for parent in map(_plain, parents):
            if parent not in self.files:
                raise Refused(404, "notFound", f"File not found: {parent}.")
            name = wanted.get("name")
            inside = (
                self._children.get(parent, {})
                if name is None
                else self._of_name.get((parent, name.lower()), {})
            )
            for number in inside:
                file = self.files[number]
                if trashed is not None and self._in_trash(file) != (trashed[1] == "true"):
                    continue
                if self.lag and file.created > seen:
                    continue
                if file.kind == wanted.get("mimeType", file.kind):
                    yield file

    # -- uploads

    def _upload(self, request: Request, number: str | None) -> Reply:
        there = None if number is None else self._there(number)
        if request.query.get("uploadType") == "resumable":
            about = json.loads(request.body or b"{}")
            if there is None:
                self._check_new(about)
            else:
                about["replaces"] = there.id
            self._require_room(int(request.headers.get("x-upload-content-length", "0")))
            return self.begin_session(request, about)
        about, data = parts_of(request)
        if len(data) > LARGEST_MULTIPART:
            raise Refused(413, "uploadTooLarge")
        if there is None:
            return answer(self._show(self._create(about, data)))
        return answer(self._show(self._replace(there, data)))

    def finish(self, session: Session, request: Request) -> dict[str, object]:
        about, data = dict(session.resource), bytes(session.data)
        replaces = about.pop("replaces", None)
        if replaces is None:
            return self._show(self._create(about, data))
        return self._show(self._replace(self._there(str(replaces)), data))

    def _replace(self, file: File, data: bytes) -> File:
        self._require_room(len(data) - len(file.data))
        self._used += len(data) - len(file.data)
        file.data, file.modified = data, time.time()
        return file

    def _show(self, file: File) -> dict[str, object]:
        told: dict[str, object] = {
            "id": file.id,
            "name": file.name,
            "mimeType": file.kind,
            "parents": [file.parent],
            "createdTime": _stamp(file.created),
            "modifiedTime": _stamp(file.modified),
            "trashed": self._in_trash(file),
            "explicitlyTrashed": file.trashed,
        }
        return told if file.kind == FOLDER else told | {"size": str(len(file.data))}


class DriveDouble(Double):
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
            "client_id": self.service.client_id,
            "client_secret": self.service.client_secret,
        }


_TEXT = r"'((?:[^'\\]|\\.)*)'"


def _plain(quoted: str) -> str:
    return re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)


def _stamp(moment: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
    return f"{whole}.{int(moment % 1 * 1000):03}Z"
