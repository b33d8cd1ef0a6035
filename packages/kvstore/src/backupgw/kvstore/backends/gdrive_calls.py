"""Single requests to Google Drive, each with what it is for.

By Google's own library, on a session that many threads share; bodies are sent from where they lie
and read as they come. Nothing here is repeated, but by `repeated`.
(https://developers.google.com/workspace/drive/api/reference/rest/v3)
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import httplib2
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from ..layers.retry_schedule import Schedule
from .base import Quota
from .errors import BackendError
from .gdrive_entry import FIELDS, FOLDER, LISTED, Entry, entry_of
from .google_errors import Answer, Translator
from .google_uploads import Pieces, UploadSession
from .part_transfers import Attempts

if TYPE_CHECKING:
    import requests

    from .google_session import Login

T = TypeVar("T")

SERVICE = "Google Drive"
API = "https://www.googleapis.com"
RECONNECT = (
    "connect the account again with `backupgw store auth NAME`, NAME as the settings call the place"
)

MOST_AT_ONCE = 5_000_000
"""Bytes that one request carries (https://developers.google.com/workspace/drive/api/guides/manage-uploads)."""

_PAGE = 1000
"""Entries of a page: what Drive lists at most."""
_IDS = 200
"""Ids that are had at a time."""
_CONFLICT = 409
_TYPE = "application/octet-stream"
_EVERYWHERE = {"supportsAllDrives": True}


class Taken(BackendError):
    """An id is in use: the request that used it was made before."""


class Page(NamedTuple):
    """A page of a list; `after` asks for the next one."""

    entries: Sequence[Entry]
    after: str | None


@dataclass(frozen=True, slots=True)
class Download:
    """An answer with a file's bytes, or a part of them."""

    response: requests.Response
    size: int
    length: int
    version: str | None


class _Http:
    """What Google's library wants of an HTTP client, on a session of `requests`."""

    def __init__(self, session: requests.Session, timeout: tuple[float, float]) -> None:
        self._session = session
        self._timeout = timeout

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: Any = None,
        headers: Any = None,
        redirections: int = 5,  # noqa: ARG002 - the library's
        connection_type: Any = None,  # noqa: ARG002
    ) -> tuple[httplib2.Response, bytes]:
        response = self._session.request(
            method, uri, data=body, headers=headers, timeout=self._timeout
        )
        told = httplib2.Response(
            {name.lower(): value for name, value in response.headers.items()}
            | {"status": str(response.status_code)}
        )
        return told, response.content


class Calls:
    """What is asked of Drive.

    Args:
        login: how to sign in.
        endpoint: where the API is.
        drive: id of a shared drive; None for the account's own.
        schedule: how requests are repeated.
    """

    def __init__(
        self, login: Login, endpoint: str | None, drive: str | None, schedule: Schedule
    ) -> None:
        self.translator = Translator(SERVICE, RECONNECT)
        self.schedule = schedule
        self._timeout = login.patience
        self._endpoint = endpoint or API
        self._drive = drive
        self._http: requests.Session = login.session()
        service = build(
            "drive",
            "v3",
            http=_Http(self._http, self._timeout),
            client_options={"api_endpoint": f"{self._endpoint}/drive/v3/"},
            cache_discovery=False,
            static_discovery=True,
        )
        self._files = service.files()
        self._about = service.about()
        self._ids: list[str] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def repeated(self, what: str, work: Callable[[], T]) -> T:
        """Do what may be done again until it succeeds."""
        return Attempts(self.schedule, what).result(work)

    def _ask(self, what: str, request: Any) -> Any:
        with self.translator.translated(what):
            try:
                return request.execute(num_retries=0)
            except HttpError as error:
                answer = Answer.of(int(error.resp.status), error.resp, error.content)
                raise self._refusal(answer, what) from error

    def _refusal(self, answer: Answer, what: str) -> BackendError:
        if answer.status == _CONFLICT:
            return Taken(f"{what}: {SERVICE} has that id already")
        return self.translator.refusal(answer, what)

    # -- looking

    def page(
        self,
        what: str,
        parents: Sequence[str],
        *,
        name: str | None = None,
        folders: bool = False,
        trashed: bool | None = False,
        parents_told: bool = False,
        after: str | None = None,
        most: int = _PAGE,
    ) -> Page:
        """List a page of what lies in folders.

        Args:
            parents: ids of folders.
            name: only entries of this name, as the search understands it.
            folders: only folders.
            trashed: whether what is listed lies in the trash; None for both.
            parents_told: whether each entry tells in which folder it lies.
            after: what the page before told.
        """
        terms = ["(" + " or ".join(f"{_quoted(each)} in parents" for each in parents) + ")"]
        if trashed is not None:
            terms.append(f"trashed = {str(trashed).lower()}")
        if name is not None:
            terms.append(f"name = {_quoted(name)}")
        if folders:
            terms.append(f"mimeType = {_quoted(FOLDER)}")
        fields = LISTED if trashed is not None else f"{LISTED},explicitlyTrashed"
        if parents_told:
            fields += ",parents"
        where: dict[str, Any] = {"includeItemsFromAllDrives": True}
        if self._drive is not None:
            where |= {"corpora": "drive", "driveId": self._drive}
        answer = self._ask(
            what,
            self._files.list(
                q=" and ".join(terms),
                fields=f"nextPageToken,files({fields})",
                pageSize=most,
                pageToken=after,
                spaces="drive",
                **where,
                **_EVERYWHERE,
            ),
        )
        files = answer.get("files", [])
        files.reverse()
        entries = []
        while files:  # what was understood is let go of, for there may be many
            entries.append(entry_of(files.pop(), what))
        return Page(entries, answer.get("nextPageToken"))

    def entries(
        self,
        what: str,
        parents: Sequence[str],
        *,
        name: str | None = None,
        folders: bool = False,
        trashed: bool | None = False,
        parents_told: bool = False,
    ) -> Iterator[Entry]:
        """Yield what lies in folders."""
        after: str | None = None
        while True:
            at = after
            page = self.repeated(
                what,
                lambda: self.page(
                    what,
                    parents,
                    name=name,
                    folders=folders,
                    trashed=trashed,
                    parents_told=parents_told,
                    after=at,  # noqa: B023
                ),
            )
            after, found = page.after, [*reversed(page.entries)]
            del page
            while found:
                yield found.pop()
            if after is None:
                return

    def get(self, what: str, entry: str) -> Entry:
        """Return an entry by its id. Raises ObjectNotFound."""
        answer = self._ask(what, self._files.get(fileId=entry, fields=FIELDS, **_EVERYWHERE))
        return entry_of(answer, what)

    def space(self) -> Quota:
        """Return the account's limit and what it holds, with all that it keeps elsewhere."""
        told = self._ask("the account", self._about.get(fields="storageQuota"))
        quota = told.get("storageQuota", {})
        return Quota(int(quota.get("limit") or -1), int(quota.get("usage") or -1))

    # -- reading

    def download(self, what: str, entry: str, wanted: str | None) -> Download:
        """Begin to read a file.

        Args:
            wanted: as a Range header has it.

        Raises:
            ObjectNotFound: it is gone.
            ReadRangeError: it is shorter.
        """
        query = urlencode({"alt": "media", "supportsAllDrives": "true"})
        headers = {"Accept-Encoding": "identity"} | ({"Range": wanted} if wanted else {})
        with self.translator.translated(what):
            response = self._http.request(
                "GET",
                f"{self._endpoint}/drive/v3/files/{quote(entry, safe='')}?{query}",
                headers=headers,
                timeout=self._timeout,
                stream=True,
            )
        try:
            with self.translator.translated(what):
                self.translator.check(response, what, 200, 206)
            return _download(response, what)
        except BaseException:
            response.close()
            raise

    # -- writing

    def new_id(self) -> str:
        """Return an id that nobody has used: who creates with it twice is told so."""
        with self._lock:  # who comes meanwhile takes one of those that are on their way
            if not self._ids:
                answer = self._ask("ids", self._files.generateIds(count=_IDS, space="drive"))
                self._ids += [str(each) for each in answer["ids"]]
            return self._ids.pop()

    def make_folder(self, what: str, name: str, parent: str, new: str) -> Entry:
        """Make a folder with the id `new`. Raises Taken, ObjectNotFound for a parent that is
        gone."""
        body = {"id": new, "name": name, "parents": [parent], "mimeType": FOLDER}
        answer = self._ask(what, self._files.create(body=body, fields=FIELDS, **_EVERYWHERE))
        return entry_of(answer, what)

    def put(self, what: str, data: bytes | bytearray, about: Where) -> Entry:
        """Store a value of at most MOST_AT_ONCE bytes by one request.

        Raises:
            Taken: the id of a new file was used already.
            ObjectNotFound: the parent of a new file, or the file to be replaced, is gone.
        """
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(about.body)}\r\n--{boundary}\r\nContent-Type: {_TYPE}\r\n\r\n"
        )
        pieces = Pieces(head.encode(), data, f"\r\n--{boundary}--\r\n".encode())
        try:
            response = self._upload(
                what, about, "multipart", pieces, f"multipart/related; boundary={boundary}"
            )
        finally:
            pieces.release()
        with self.translator.translated(what):
            return entry_of(response.json(), what)

    def begin(self, what: str, size: int | None, about: Where) -> UploadSession:
        """Begin an upload. Raises what `put` does."""
        more = {"X-Upload-Content-Type": _TYPE}
        if size is not None:
            more["X-Upload-Content-Length"] = str(size)
        response = self._upload(
            what,
            about,
            "resumable",
            json.dumps(about.body).encode(),
            "application/json; charset=UTF-8",
            **more,
        )
        return self.session(what, response.headers["location"], new=True)

    def session(self, what: str, url: str, *, new: bool = False) -> UploadSession:
        """Return an upload that was begun."""
        return UploadSession(self._http, url, self.translator, what, self._timeout, new=new)

    def _upload(
        self, what: str, about: Where, how: str, body: Any, kind: str, **headers: str
    ) -> requests.Response:
        query = urlencode({"uploadType": how, "supportsAllDrives": "true", "fields": FIELDS})
        with self.translator.translated(what):
            response = self._http.request(
                about.method,
                f"{self._endpoint}/upload/drive/v3/files{about.path}?{query}",
                data=body,
                headers={"Content-Type": kind, **headers},
                timeout=self._timeout,
            )
            with response:
                if response.status_code != 200:
                    status, told = response.status_code, response.content
                    raise self._refusal(Answer.of(status, response.headers, told), what)
        return response

    def copy(self, what: str, entry: str, name: str, parent: str, new: str) -> Entry:
        """Copy a file, by Drive itself. Raises Taken, ObjectNotFound."""
        body = {"id": new, "name": name, "parents": [parent]}
        answer = self._ask(
            what, self._files.copy(fileId=entry, body=body, fields=FIELDS, **_EVERYWHERE)
        )
        return entry_of(answer, what)

    # -- removing

    def set_trashed(self, what: str, entry: str, trashed: bool) -> None:
        """Put an entry into the trash, or take it out. Raises ObjectNotFound."""
        self._ask(
            what,
            self._files.update(fileId=entry, body={"trashed": trashed}, fields="id", **_EVERYWHERE),
        )

    def delete(self, what: str, entry: str) -> None:
        """Delete an entry for ever. Raises ObjectNotFound."""
        self._ask(what, self._files.delete(fileId=entry, **_EVERYWHERE))


@dataclass(frozen=True, slots=True)
class Where:
    """Where a value goes: into a new file, or into one that is there.

    Attributes:
        entry: id of the file, which a new one is to have.
        name, parent: of a new file; None for one that is there.
    """

    entry: str
    name: str | None = None
    parent: str | None = None

    @property
    def method(self) -> str:
        """Of the request."""
        return "PATCH" if self.name is None else "POST"

    @property
    def path(self) -> str:
        """What the request's path has at its end."""
        return f"/{quote(self.entry, safe='')}" if self.name is None else ""

    @property
    def body(self) -> dict[str, object]:
        """What the file is to be like."""
        if self.name is None:
            return {}
        kind = _TYPE  # or Drive would guess, and make documents of some
        return {"id": self.entry, "name": self.name, "parents": [self.parent], "mimeType": kind}


def call_name(method: str, path: str) -> str:
    """Return what Google calls a request: `files.list`."""
    if path.startswith("/upload/"):
        return "files.update" if re.search(r"/files/[^/]+\Z", path) else "files.create"
    last = path.rsplit("/", 1)[1]
    if last in ("copy", "generateIds", "about"):
        return "about.get" if last == "about" else f"files.{last}"
    if last == "files":
        return "files.list" if method == "GET" else "files.create"
    return f"files.{ {'GET': 'get', 'PATCH': 'update'}.get(method, method.lower()) }"


def _quoted(text: str) -> str:
    """Return text as a search query has it
    (https://developers.google.com/workspace/drive/api/guides/ref-search-terms)."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _download(response: requests.Response, what: str) -> Download:
    headers = response.headers
    if "content-length" not in headers:
        raise BackendError(f"{what}: {SERVICE} does not say how much it sends", retryable=True)
    length = int(headers["content-length"])
    span = re.search(r"/(\d+)\Z", headers.get("content-range", ""))
    if response.status_code == 206 and span is None:
        raise BackendError(f"{what}: {SERVICE} sends a part and does not say which")
    return Download(response, int(span[1]) if span else length, length, headers.get("x-goog-hash"))
