"""Single requests to Drime, each with what it is for.

Nothing here is repeated: `repeated` does that for what may be, writers for what they send.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from http import HTTPStatus as Http
from typing import Any, NamedTuple
from urllib.parse import urlencode

from . import drime_errors
from .drime_entry import Entry, Page, entry_of
from .drime_requests import Requests
from .drime_transport import Answer, Begun, Request, onward, origin_of
from .errors import BackendError, BackendMustBeOpen, ObjectNotFound, PermissionDenied

PER_PAGE = 200
"""Entries that Drime lists at most in one answer."""

_BYTES = frozenset(map(int, (Http.OK, Http.PARTIAL_CONTENT)))
"""Answers to a download that hold what was asked for."""

_MIME = "application/octet-stream"
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")


class Download(NamedTuple):
    """An answer with bytes of a file: `first` of `total`, or None where all come."""

    answer: Answer
    first: int | None
    total: int | None


class Listing(NamedTuple):
    """A page that is asked for; see `Calls.page`."""

    what: str
    parents: tuple[int, ...]
    number: int = 1
    per_page: int = PER_PAGE
    query: str | None = None
    folders: bool = False


class PageBegun(NamedTuple):
    """A page that was asked for, by `Calls.begin_page`."""

    calls: Calls
    listing: Listing
    begun: Begun

    def result(self) -> Page:
        """Return it. Called once. Raises BackendError."""
        return self.calls.page_of(self.listing, self.begun)

    def drop(self) -> None:
        """Let it go, unless it was fetched. Idempotent."""
        self.begun.drop()


class Calls(Requests):
    """What is asked of a workspace; the arguments are those of `Requests`."""

    newest = 0
    """The highest id that was seen so far."""

    links_last = False
    """Whether Drime's last answer to a download was a link that can be used later."""

    on_link: Callable[[str, Entry], None] | None = None
    """Told of each such link: an item's name and its entry."""

    def _seen(self, shown: object, what: str) -> Entry:
        entry = entry_of(shown, what)
        self.newest = max(self.newest, entry.id)
        return entry

    # -- entries

    def page(
        self,
        what: str,
        parents: Sequence[int],
        number: int = 1,
        per_page: int = PER_PAGE,
        *,
        query: str | None = None,
        folders: bool = False,
    ) -> Page:
        """List a page of what lies in the folders, ordered by name.

        Args:
            parents: ids of folders, 0 for the workspace's root.
            number: of the page, from 1.
            query: only entries whose name holds this.
            folders: only folders.
        """
        listing = Listing(what, tuple(parents), number, per_page, query, folders)
        return self._page(listing, self._json(what, self._listed(listing)))

    def begin_page(self, what: str, parents: Sequence[int]) -> PageBegun:
        """Ask for the first page of what lies in the folders, and let the caller do something else
        until `PageBegun.result` is needed. Raises what a request does."""
        listing = Listing(what, tuple(parents))
        return PageBegun(self, listing, self._begin(what, self._listed(listing)))

    def _listed(self, listing: Listing) -> Request:
        asked = {
            "perPage": str(listing.per_page),
            "workspaceId": str(self.workspace),
            "page": str(listing.number),
            "parentIds": ",".join(map(str, listing.parents)),
            "orderBy": "name",
            "orderDir": "asc",
        }
        if listing.query:
            asked["query"] = listing.query
        if listing.folders:
            asked["type"] = "folder"
        return Request("GET", f"{self._base}/drive/file-entries?{urlencode(asked)}", {})

    def _page(self, listing: Listing, answer: dict[str, Any]) -> Page:
        what, data = listing.what, answer.get("data")
        if not isinstance(data, list):
            raise BackendError(f"{what}: Drime's list cannot be understood")
        wanted = set(listing.parents)
        # A search may look further than it was told.
        entries = [
            self._seen(each, what) for each in data if (each.get("parent_id") or 0) in wanted
        ]
        here, last, size = (answer.get(k) for k in ("current_page", "last_page", "per_page"))
        ended = not data or (isinstance(here, int) and isinstance(last, int) and here >= last)
        told = size if isinstance(size, int) and size > 0 else listing.per_page
        return Page(entries, told, ended)

    def page_of(self, listing: Listing, begun: Begun) -> Page:
        """Return the page that was begun; asked for anew where that may help."""
        try:
            return self._page(listing, self._ended(listing.what, begun))
        except BackendError as error:
            if not error.retryable:
                raise
        return self.repeated(lambda: self.page(listing.what, listing.parents))

    def make_folder(self, what: str, name: str, parent: int) -> Entry:
        """Make a folder. Raises drime_errors.Refused where the name is taken."""
        answer = self._ask(
            what,
            lambda: self._client.create_folder(
                name=name, parent_id=parent or None, workspace_id=self.workspace
            ),
        )
        return self._seen(answer.get("folder"), what)

    def delete(self, what: str, ids: Sequence[int], *, forever: bool) -> None:
        """Delete entries; `Refused`, and nothing is deleted, where one of them is gone."""
        self.links.forget(ids)
        self._ask(
            what,
            lambda: self._client.delete_file_entries(
                [*ids], delete_forever=forever, workspace_id=self.workspace
            ),
        )

    def move(self, what: str, entry: int, folder: int) -> None:
        """Put an entry into another folder; it keeps its id."""
        self._ask(
            what,
            lambda: self._client.move_file_entries(
                [entry], destination_id=folder or None, workspace_id=self.workspace
            ),
        )

    def duplicate(self, what: str, entry: int, folder: int) -> Entry:
        """Copy a file into another folder."""
        answer = self._ask(
            what,
            lambda: self._client.duplicate_file_entries(
                [entry], destination_id=folder or None, workspace_id=self.workspace
            ),
        )
        made = answer.get("entries")
        if not isinstance(made, list) or len(made) != 1:
            raise BackendError(f"{what}: Drime's answer to a copy cannot be understood")
        return self._seen(made[0], what)

    def rename(self, what: str, entry: int, name: str) -> None:
        """Give an entry another name."""
        self._ask(
            what,
            lambda: self._client.rename_file_entry(entry, name, workspace_id=self.workspace),
        )

    def space(self) -> tuple[int, int]:
        """Return the bytes that the account may hold, and those that it holds."""
        answer = self._ask("the account's space", self._client.get_space_usage)
        match answer:
            case {"available": int(available), "used": int(used)}:
                return available, used
        return -1, -1

    # -- bytes in

    def upload(self, what: str, name: str, parent: int, data: bytes | bytearray) -> Entry:
        """Upload a file by one request; a name that is taken is no obstacle."""
        boundary = secrets.token_hex(16)
        fields = {"relativePath": name, "workspaceId": str(self.workspace)}
        if parent:
            fields["parentId"] = str(parent)
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        )
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: {_MIME}\r\n\r\n"
        )
        start, end = head.encode(), f"\r\n--{boundary}--\r\n".encode()
        form = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = Request("POST", f"{self._base}/uploads", form, (start, data, end))
        return self._seen(self._json(what, request).get("fileEntry"), what)

    def begin_parts(self, what: str, name: str, parent: int, size: int) -> tuple[str, str]:
        """Begin an upload in parts; return its id and the key of its bytes.

        Args:
            size: in bytes, 0 where it is not known.
        """
        asked = self._described(name, parent, size) | {"mime": _MIME, "filename": name}
        answer = self._post(what, "/s3/multipart/create", asked)
        match answer:
            case {"uploadId": str(upload), "key": str(key)}:
                return upload, key
        raise BackendError(f"{what}: Drime's answer to an upload cannot be understood")

    def sign(self, what: str, upload: str, key: str, numbers: Sequence[int]) -> dict[int, str]:
        """Return where parts, at most 10 at a time, are to be sent, by their numbers."""
        asked = {"key": key, "uploadId": upload, "partNumbers": [*numbers]}
        answer = self._post(what, "/s3/multipart/batch-sign-part-urls", asked)
        urls = answer.get("urls")
        try:
            found = {int(each["partNumber"]): str(each["url"]) for each in urls or ()}
        except (TypeError, KeyError, ValueError) as error:
            raise BackendError(f"{what}: Drime's signatures cannot be understood") from error
        if not found.keys() >= set(numbers):
            raise BackendError(f"{what}: Drime has not signed every part", retryable=True)
        return found

    def send_part(self, what: str, url: str, data: bytes | bytearray) -> str:
        """Send a part to the storage; return its tag."""
        request = Request("PUT", url, {"Content-Type": _MIME}, (data,))
        answer = self._send(what, request, stranger=True)
        self._read(what, answer)
        tag = (answer.header("ETag") or "").strip('"')
        if not tag:
            raise BackendError(f"{what}: the storage took a part without a tag", retryable=True)
        return tag

    def complete(self, what: str, upload: str, key: str, tags: Sequence[str]) -> None:
        """Join the parts. Raises ObjectNotFound where Drime knows of no such upload."""
        parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
        asked = {"key": key, "uploadId": upload, "parts": parts}
        self._post(what, "/s3/multipart/complete", asked)

    def abort(self, what: str, upload: str, key: str) -> None:
        """Give an upload in parts up; one that is gone is fine."""
        try:
            self._post(what, "/s3/multipart/abort", {"key": key, "uploadId": upload})
        except (ObjectNotFound, drime_errors.Refused):
            return

    def register(self, what: str, name: str, parent: int, size: int, key: str) -> Entry:
        """Make an entry of joined parts."""
        asked = self._described(name, parent, size)
        asked |= {
            "clientMime": _MIME,
            "clientName": name,
            "filename": stored_as(key),
            "clientExtension": asked.pop("extension"),
        }
        return self._seen(self._post(what, "/s3/entries", asked).get("fileEntry"), what)

    def _described(self, name: str, parent: int, size: int) -> dict[str, Any]:
        # An upload in parts needs an extension, and blobs have none.
        extension = name.rpartition(".")[2] if "." in name.strip(".") else ""
        described: dict[str, Any] = {
            "size": size,
            "extension": extension or "bin",
            "relativePath": name,
            "workspaceId": self.workspace,
        }
        return described | ({"parentId": parent} if parent else {})

    # -- bytes out

    def download(
        self, what: str, entry: Entry, first: int, last: int | None, *, linked: bool = False
    ) -> Download:
        """Ask for a file from a byte on, to another (inclusive) or to its end.

        Args:
            linked: use a link again that the storage was asked by before; whether the entry is
                still there is not looked at then.

        Raises:
            ObjectNotFound: there is no such entry any more.
        """
        headers = {}
        if first or last is not None:
            headers["Range"] = f"bytes={first}-{'' if last is None else last}"
        answer = self._linked(what, entry, headers) if linked else None
        if answer is None:
            answer = self._redirected(what, entry, headers)
        if answer.status not in _BYTES:
            answer.release()
            raise BackendError(
                f"{what}: the storage answers status {answer.status}, and no bytes", retryable=True
            )
        length = answer.header("Content-Length") or ""
        if "text/html" in (answer.header("Content-Type") or "") and length != str(entry.size):
            answer.release()
            raise PermissionDenied(drime_errors.PAGE_ANSWERED)
        if answer.status == Http.PARTIAL_CONTENT:
            span = _RANGE.match(answer.header("Content-Range") or "")
            if span is None or int(span[1]) != first:
                answer.release()
                raise BackendError(f"{what}: the storage sends another range than was asked for")
            return Download(answer, int(span[1]), int(span[3]))
        return Download(answer, None, int(length) if length.isdigit() else None)

    def _linked(self, what: str, entry: Entry, headers: dict[str, str]) -> Answer | None:
        """Return the answer to a link that is known; None where there is none that is good."""
        link = self.links.get(entry.id)
        if link is None:
            return None
        try:
            return self._send(what, Request("GET", link, headers), stranger=True)
        except BackendMustBeOpen:
            raise
        except BackendError:  # it has run out, or the bytes are gone: Drime knows
            self.links.forget([entry.id])
            return None

    def ask_link(self, entry: Entry) -> bool:
        """Ask for the link to an entry's bytes, for a download to come; raises nothing.

        Returns:
            False where Drime gives none that can be used later.
        """
        what = f"entry {entry.id}"
        request = self._asking_for(entry, {})
        try:
            answer = self._send(what, request)
            link = onward(request, answer)
            if link is None:
                answer.release()
                return False
            self._read(what, answer)
            if origin_of(link.url) == origin_of(request.url):
                return False
        except BackendError:
            return True  # whoever reads it will see
        return self.links.keep(entry.id, link.url)

    def _asking_for(self, entry: Entry, headers: dict[str, str]) -> Request:
        return Request("GET", f"{self._base}/file-entries/download/{entry.hash}", headers)

    def _redirected(self, what: str, entry: Entry, headers: dict[str, str]) -> Answer:
        request = self._asking_for(entry, headers)
        try:
            answer = self._send(what, request)
            if (link := onward(request, answer)) is None:
                self.links_last = False
                return answer
            self._read(what, answer)
            stranger = origin_of(link.url) != origin_of(request.url)
            self.links_last = stranger and self.links.keep(entry.id, link.url)
            if self.links_last and self.on_link is not None:
                self.on_link(what, entry)
            return self._send(what, link, stranger=stranger)
        except drime_errors.Refused as error:
            self.links.forget([entry.id])
            raise ObjectNotFound(what) from error
        except BackendError:
            self.links.forget([entry.id])
            raise


def stored_as(key: str) -> str:
    """Return the name of an upload's bytes in the storage."""
    return key.rpartition("/")[2]
