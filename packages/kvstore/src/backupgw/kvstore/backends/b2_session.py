"""Backblaze B2 through its own SDK: one bucket, as the backend needs it.

The SDK authorises, renews what expired, and has an upload URL for each upload that is under way.
What it would try again after pauses of its own is tried again by the kernel, which knows when to
stop.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from b2sdk.v3 import B2Http, B2HttpApiConfig, B2Session, HttpCallback, InMemoryAccountInfo

from .api_calls import OnCall
from .b2_errors import Translator
from .errors import BackendDoesNotExist, ObjectNotFound, PermissionDenied
from .rclone_names import decoded, encoded

logging.getLogger("b2sdk").setLevel(logging.CRITICAL)
"""What it tells as an error it raises too; below, it tells tokens."""

PAGE = 1000
"""Names that one call lists; more would be counted as several."""

TIMEOUT = 128.0
"""Seconds without a byte, as the SDK has it."""

NEEDED = ("listFiles", "readFiles", "writeFiles")
"""What a key must be allowed; without deleteFiles nothing can be removed."""

_TYPE = "b2/x-auto"
_KEPT_ACTIONS = frozenset({"upload"})


class _Http(B2Http):  # type: ignore[misc]  # the SDK has no types
    """The SDK's, without its own repetitions."""

    @classmethod
    def _translate_and_retry(
        cls,
        fcn: Callable[..., Any],
        try_count: int,  # noqa: ARG003 - the SDK's
        post_params: dict[str, Any] | None = None,
    ) -> Any:
        return cls._translate_errors(fcn, post_params)


class _Told(HttpCallback):  # type: ignore[misc]
    """Tells of requests: `/b2api/v4/b2_list_buckets`, `/b2api/v4/b2_upload_file/…`, and files by
    their names."""

    def __init__(self, on_call: OnCall) -> None:
        self._on_call = on_call

    def pre_request(self, method: str, url: str, headers: Any) -> None:  # noqa: ARG002 - the SDK's
        found = re.search(r"/b2api/v\d+/(b2_\w+)", url)
        self._on_call(found[1] if found else "b2_download_file_by_name")


class _Session(B2Session):  # type: ignore[misc]
    B2HTTP_CLASS = _Http


_HTTP = B2HttpApiConfig(install_clock_skew_hook=False)  # it fails where an answer has no date


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a file. `name` is the place's."""

    name: str
    id: str
    size: int
    uploaded: float
    """Seconds since the epoch."""
    hidden: bool


class Bucket:
    """A bucket, below a path. Names are the place's.

    Args:
        name: of the bucket.
        root: the path.
        key_id, key: of an application key.
        realm: "production", or the URL of another service.
        api: the SDK's settings; what tests replace.
        timeout: seconds without a byte after which a request failed.
        on_call: is told of each request.
    """

    def __init__(
        self,
        name: str,
        root: str,
        key_id: str,
        key: str,
        realm: str,
        api: B2HttpApiConfig | None = None,
        *,
        timeout: float = TIMEOUT,
        on_call: OnCall | None = None,
    ) -> None:
        self.name = name
        self.root = f"{root}/" if root else ""
        self.shown = f"backblaze:{name}{'/' * bool(root)}{root}"
        self.session = _Session(InMemoryAccountInfo(), api_config=api or _HTTP)
        http = getattr(self.session.raw_api, "b2_http", None)  # the SDK's simulator has none
        if isinstance(http, _Http):
            http.TIMEOUT = http.TIMEOUT_FOR_UPLOAD = timeout
            if on_call is not None:
                http.add_callback(_Told(on_call))
        self.translate = Translator(self.shown, self._restrictions)
        self._login = (realm, key_id, key)
        self._id: str | None = None

    def authorize(self) -> None:
        """Log in.

        Raises:
            PermissionDenied: the key is not accepted, or may not even look.
        """
        self.translate.call("", self.session.authorize_account, *self._login)
        allowed = self.session.account_info.get_allowed()
        missing = [each for each in NEEDED if each not in (allowed.get("capabilities") or ())]
        if missing:
            raise PermissionDenied(
                f"{self.shown}: the application key lacks {', '.join(missing)}; make one that has "
                f"{', '.join(NEEDED)} and deleteFiles"
            )
        prefix = allowed.get("namePrefix") or ""
        if prefix and not self.root.startswith(prefix):
            raise PermissionDenied(
                f"{self.shown}: the application key is for names that begin with {prefix!r}; the "
                "place's path has to lie there"
            )

    def _restrictions(self) -> str:
        """Tell what the key is restricted to, for messages."""
        try:
            allowed = self.session.account_info.get_allowed()
        except Exception:  # noqa: BLE001 - nobody is logged in, and the SDK has an error for that
            return ""
        told = [f"it has {', '.join(sorted(allowed.get('capabilities') or ()))}"]
        buckets = [each.get("name") or each["id"] for each in allowed.get("buckets") or ()]
        if buckets:
            told.append(f"for {', '.join(buckets)}")
        if allowed.get("namePrefix"):
            told.append(f"for names that begin with {allowed['namePrefix']!r}")
        return f" ({', '.join(told)})"

    @property
    def id(self) -> str:
        """B2's id of the bucket. Raises BackendDoesNotExist."""
        if self._id is None:
            found = self.find()
            if found is None:
                raise BackendDoesNotExist(f"{self.shown}: there is no such bucket")
            self._id = found
        return self._id

    def find(self) -> str | None:
        """Return the bucket's id, None where there is none."""
        told = self.translate.call(
            "", self.session.list_buckets, self._account, bucket_name=self.name
        )
        return next(
            (each["bucketId"] for each in told["buckets"] if each["bucketName"] == self.name), None
        )

    @property
    def _account(self) -> str:
        return str(self.session.account_info.get_account_id())

    def make(self) -> None:
        """Make the bucket, private."""
        self.translate.call("", self.session.create_bucket, self._account, self.name, "allPrivate")

    def remove(self) -> None:
        """Remove the bucket, which is empty."""
        self.translate.call("", self.session.delete_bucket, self._account, self.id)
        self._id = None

    def file(self, name: str) -> str:
        """Return B2's name of an item."""
        return f"{self.root}{encoded(name)}"

    def place_name(self, file: str) -> str:
        """Return the place's name of one of B2's."""
        return decoded(file[len(self.root) :])

    # -- looking

    def head(self, name: str) -> Version | None:
        """Return the newest version of an item, None where there is none."""
        try:
            told = self.translate.call(
                name, self.session.get_file_info_by_name, self.name, self.file(name)
            )
        except ObjectNotFound:
            return None
        headers = {key.lower(): value for key, value in told.items()}
        return Version(
            name,
            str(headers["x-bz-file-id"]),
            int(headers["content-length"]),
            int(headers.get("x-bz-upload-timestamp") or 0) / 1000,
            hidden=False,
        )

    def versions(self, name: str) -> list[Version]:
        """Return the versions of an item, newest first, hide markers included."""
        file = self.file(name)
        found = []
        for each in self._pages(self.session.list_file_versions, file, start=file):
            if each["fileName"] != file:
                break
            if each["action"] in ("upload", "hide", "copy"):
                found.append(self._version(each))
        return found

    def all_versions(self) -> Iterator[Version]:
        """Yield every version below the root."""
        for each in self._pages(self.session.list_file_versions, self.root):
            yield self._version(each)

    def _version(self, told: dict[str, Any]) -> Version:
        return Version(
            self.place_name(told["fileName"]),
            told["fileId"],
            int(told.get("contentLength") or told.get("size") or 0),
            int(told.get("uploadTimestamp") or 0) / 1000,
            hidden=told["action"] == "hide",
        )

    def below(self, folder: str) -> Iterator[tuple[str, Version | None]]:
        """Yield (segment, newest version) of what lies in a folder, None for a folder in it.

        B2 lists names in the order of their bytes, whatever lies deeper among them: what lies in
        a folder is passed over by asking from behind it.
        """
        prefix = f"{self.file(folder)}/" if folder else self.root
        start = prefix or None
        while True:
            page = self.translate.call(
                folder, self.session.list_file_names, self.id, start, PAGE, prefix
            )
            inside = ""
            for told in page["files"]:
                rest = told["fileName"][len(prefix) :]
                if inside and rest.startswith(inside):
                    continue
                segment, slash, _ = rest.partition("/")
                inside = f"{segment}/" if slash else ""
                if told["action"] in _KEPT_ACTIONS or slash:
                    yield decoded(segment), None if slash else self._version(told)
            start = page["nextFileName"]
            if start is None:
                return
            if inside and start.startswith(prefix + inside):
                start = f"{prefix}{inside[:-1]}0"  # the letter behind the slash

    def _pages(
        self, call: Callable[..., dict[str, Any]], prefix: str, *, start: str | None = None
    ) -> Iterator[dict[str, Any]]:
        start = start or prefix or None
        start_id: str | None = None
        while True:
            page = self.translate.call("", call, self.id, start, start_id, PAGE, prefix)
            yield from page["files"]
            start, start_id = page["nextFileName"], page["nextFileId"]
            if start is None:
                return

    def unfinished(self) -> Iterator[tuple[str, float]]:
        """Yield (id, seconds since the epoch) of large files that nobody has finished."""
        start: str | None = None
        while True:
            page = self.translate.call(
                "", self.session.list_unfinished_large_files, self.id, start, 100, self.root
            )
            for each in page["files"]:
                yield each["fileId"], int(each.get("uploadTimestamp") or time.time() * 1000) / 1000
            start = page["nextFileId"]
            if start is None:
                return

    # -- changing

    def put(self, name: str, data: bytes | bytearray) -> str:
        """Store a value by one request; return its version's id."""
        told = self.translate.call(
            name,
            self.session.upload_file,
            self.id,
            self.file(name),
            len(data),
            _TYPE,
            hashlib.sha1(data, usedforsecurity=False).hexdigest(),
            {},
            io.BytesIO(data) if data else _NoBytes(),
        )
        return str(told["fileId"])

    def load(self, name: str) -> bytes:
        """Return a small value. Raises ObjectNotFound."""
        url = self.session.get_download_url_by_name(self.name, self.file(name))
        with self.translate.call(name, self.session.download_file_from_url, url) as response:
            return b"".join(response.iter_content(chunk_size=1 << 20))

    def delete(self, version: Version) -> None:
        """Remove a version. Raises ObjectNotFound."""
        self.translate.call(
            version.name, self.session.delete_file_version, version.id, self.file(version.name)
        )

    def hide(self, name: str) -> None:
        """Hide an item: its versions stay, for a lifecycle rule to remove."""
        self.translate.call(name, self.session.hide_file, self.id, self.file(name))


class _NoBytes:
    """An empty value. Of an empty file `requests` sends two contradicting lengths."""

    def read(self, _size: int = -1) -> bytes:
        """Return nothing."""
        return b""

    def seek(self, _offset: int, _whence: int = 0) -> int:
        """Stay at the start."""
        return 0
