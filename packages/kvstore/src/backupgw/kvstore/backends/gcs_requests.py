"""Single requests to Google Cloud Storage, each with what it is for.

By Google's own library, but for bodies: those are sent from where they lie and read as they come.
Nothing here is repeated.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from google.api_core.exceptions import Conflict, NotFound
from google.cloud import storage

from .errors import BackendDoesNotExist, ObjectNotFound
from .gcs_checksums import crc32c
from .gcs_downloads import SERVICE, Download, download_of
from .google_errors import Translator
from .google_uploads import Pieces, UploadSession

if TYPE_CHECKING:
    import requests
    from google.cloud.storage import Bucket, Client

    from .google_session import Login

API = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"

MARK = "backupgw"
"""Metadata that tells whose value an object is."""

_FIELDS = "items(name,size,updated,generation),prefixes,nextPageToken"
_OBJECT = "name,size,updated,generation,metadata,crc32c"
_TYPE = "application/octet-stream"
_NO_PROJECT = "none"
_BATCH = 100
"""Calls that go together at most (https://cloud.google.com/storage/docs/batch)."""


class Found(NamedTuple):
    """An object: its key, bytes, seconds since the epoch, and which value of the key it is."""

    key: str
    size: int
    mtime: float
    generation: int
    mark: str = ""
    crc32c: str = ""


class Page(NamedTuple):
    """A page of a list; `after` asks for the next one."""

    found: Sequence[Found]
    prefixes: Sequence[str]
    after: str | None


class Requests:
    """What is asked of a bucket.

    Args:
        login: how to sign in.
        bucket: its name.
        project: that new buckets belong to.
        endpoint: where the API is.
        storage_class: of what is written; None for the bucket's.
    """

    def __init__(
        self,
        login: Login,
        bucket: str,
        *,
        project: str | None = None,
        endpoint: str | None = None,
        storage_class: str | None = None,
    ) -> None:
        self.translator = Translator(
            SERVICE, "check service_account, or run `gcloud auth application-default login`"
        )
        self._login = login
        self._name = bucket
        self._project = project
        self._endpoint = endpoint or API
        self._storage_class = storage_class
        self._http: requests.Session | None = None
        self._client: Client | None = None

    def _get_ready(self) -> tuple[Client, requests.Session]:
        if self._client is None or self._http is None:
            http = self._login.session()
            credentials: Any = http.credentials
            self._client = storage.Client(
                self._project or getattr(credentials, "project_id", None) or _NO_PROJECT,
                credentials,
                _http=http,
                client_options={"api_endpoint": self._endpoint},
            )
            # Where OpenTelemetry is installed, it asks for the bucket's location, for traces.
            self._client._bucket_metadata_cache = None
            self._http = http
        return self._client, self._http

    def close(self) -> None:
        """Let go of the connections."""
        http, self._http, self._client = self._http, None, None
        if http is not None:
            http.close()

    @property
    def _bucket(self) -> Bucket:
        return self._get_ready()[0].bucket(self._name)

    @property
    def _options(self) -> dict[str, Any]:
        return {"retry": None, "timeout": self._login.patience}

    # -- looking

    def head(self, key: str, what: str) -> Found | None:
        """Return an object, None where there is none."""
        blob = self._bucket.blob(key)
        with self.translator.translated(what):
            try:
                blob.reload(**self._options)
            except NotFound as error:
                if "bucket does not exist" in str(error):
                    raise
                return None
        return _found(blob)

    def page(
        self, prefix: str, what: str, *, folders: bool, after: str | None = None, most: int = 1000
    ) -> Page:
        """List a page of the objects below a prefix.

        Args:
            folders: what lies below the next slash comes as one prefix.
            after: what the page before told.

        Raises:
            BackendDoesNotExist: there is no such bucket.
        """
        client, _ = self._get_ready()
        with self._in_bucket(), self.translator.translated(what):
            listing = client.list_blobs(
                self._name,
                prefix=prefix or None,
                delimiter="/" if folders else None,
                page_size=most,
                page_token=after,
                fields=_FIELDS,
                **self._options,
            )
            found = [_found(blob) for blob in next(listing.pages, ())]
            return Page(found, sorted(listing.prefixes), listing.next_page_token)

    @contextlib.contextmanager
    def _in_bucket(self) -> Iterator[None]:
        """What is not found, where no object is asked for, is the bucket."""
        try:
            yield
        except ObjectNotFound as error:
            raise BackendDoesNotExist(f"{SERVICE} has no bucket {self._name}") from error

    # -- reading

    def get(self, key: str, what: str, *, wanted: str | None, generation: str | None) -> Download:
        """Begin to read an object.

        Args:
            wanted: as a Range header has it.
            generation: that it must have.

        Raises:
            ObjectNotFound: there is none, or none of that generation.
            ReadRangeError: it is shorter.
        """
        query = {"alt": "media"} | ({} if generation is None else {"generation": generation})
        headers = {"Accept-Encoding": "gzip"}  # as it is stored, whatever its encoding
        if wanted is not None:
            headers["Range"] = wanted
        bucket, name = quote(self._name, safe=""), quote(key, safe="")
        with self.translator.translated(what):
            response = self._get_ready()[1].request(
                "GET",
                f"{self._endpoint}/download/storage/v1/b/{bucket}/o/{name}?{urlencode(query)}",
                headers=headers,
                timeout=self._login.patience,
                stream=True,
            )
        try:
            with self.translator.translated(what):
                self.translator.check(response, what, 200, 206)
            return download_of(response, what)
        except BaseException:
            response.close()
            raise

    # -- writing

    def put(
        self,
        key: str,
        data: bytes | bytearray,
        what: str,
        *,
        if_absent: bool = False,
        mark: str | None = None,
    ) -> None:
        """Store a value by one request, which tells its CRC, so that damage is noticed.

        Raises:
            ObjectExists: (if_absent) there is one.
        """
        resource = self._resource(key, mark) | {"crc32c": crc32c(data)}
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(resource)}\r\n--{boundary}\r\nContent-Type: {_TYPE}\r\n\r\n"
        )
        query = {"uploadType": "multipart", "fields": "name"}
        pieces = Pieces(head.encode(), data, f"\r\n--{boundary}--\r\n".encode())
        try:
            self._upload(query, pieces, what, if_absent, f"multipart/related; boundary={boundary}")
        finally:
            pieces.release()

    def begin(
        self, key: str, what: str, size: int | None, *, if_absent: bool, mark: str
    ) -> UploadSession:
        """Begin an upload.

        Args:
            size: of the value in bytes, where it is known.

        Raises:
            ObjectExists: (if_absent) there is an object already.
        """
        body = json.dumps(self._resource(key, mark)).encode()
        more = {"X-Upload-Content-Type": _TYPE}
        if size is not None:
            more["X-Upload-Content-Length"] = str(size)
        answer = self._upload(
            {"uploadType": "resumable"}, body, what, if_absent, "application/json", **more
        )
        return self.session(answer.headers["location"], what, new=True)

    def session(self, url: str, what: str, *, new: bool = False) -> UploadSession:
        """Return an upload that was begun."""
        _, http = self._get_ready()
        return UploadSession(http, url, self.translator, what, self._login.patience, new=new)

    def _resource(self, key: str, mark: str | None) -> dict[str, object]:
        resource: dict[str, object] = {"name": key}
        if mark is not None:
            resource["metadata"] = {MARK: mark}
        if self._storage_class is not None:
            resource["storageClass"] = self._storage_class
        return resource

    def _upload(
        self,
        query: dict[str, str],
        body: Any,
        what: str,
        if_absent: bool,
        kind: str,
        **headers: str,
    ) -> requests.Response:
        if if_absent:
            query |= {"ifGenerationMatch": "0"}
        bucket = quote(self._name, safe="")
        with self.translator.translated(what):
            response = self._get_ready()[1].request(
                "POST",
                f"{self._endpoint}/upload/storage/v1/b/{bucket}/o?{urlencode(query)}",
                data=body,
                headers={"Content-Type": kind, **headers},
                timeout=self._login.patience,
            )
            with response:
                self.translator.check(response, what, 200)
        return response

    # -- changing

    def copy(self, found: Found, key: str, what: str, *, if_absent: bool = False) -> None:
        """Copy an object within the bucket, by the service itself.

        Raises:
            ObjectExists: (if_absent) there is one at `key`; or the source was replaced.
            ObjectNotFound: the source is gone.
        """
        bucket = self._bucket
        source = bucket.blob(found.key)
        target = bucket.blob(key)
        if self._storage_class is not None:
            target.storage_class = self._storage_class
        token: str | None = None
        with self.translator.translated(what):
            while True:
                token, _, _ = target.rewrite(
                    source,
                    token=token,
                    if_generation_match=0 if if_absent else None,
                    if_source_generation_match=found.generation,
                    **self._options,
                )
                if token is None:
                    return

    def delete(self, key: str, what: str, *, generation: int | None = None) -> None:
        """Delete an object.

        Args:
            generation: only if it has this one.

        Raises:
            ObjectNotFound: there is none.
            ObjectExists: it has another generation.
        """
        blob = self._bucket.blob(key)
        with self.translator.translated(what):
            blob.delete(if_generation_match=generation, **self._options)

    def delete_batch(self, found: Sequence[Found], what: str) -> None:
        """Delete many objects, some of which may be gone."""
        client, _ = self._get_ready()
        for start in range(0, len(found), _BATCH):
            with self.translator.translated(what):
                try:
                    with client.batch():
                        for each in found[start : start + _BATCH]:
                            self._bucket.blob(each.key).delete(**self._options)
                except NotFound:
                    continue  # the library tells of the first that failed; what stays is seen again

    def create_bucket(self, what: str, location: str | None) -> None:
        """Make the bucket; one that somebody makes at the same moment is fine.

        Raises:
            BackendDoesNotExist: no project is known that it could belong to.
        """
        client, _ = self._get_ready()
        if client.project == _NO_PROJECT:
            raise BackendDoesNotExist(
                f"{SERVICE} has no bucket {self._name}, and to make it `project` must be set"
            )
        with self.translator.translated(what):
            try:
                client.create_bucket(self._name, location=location, **self._options)
            except Conflict as error:
                if "own" in str(error) and "already own" not in str(error):
                    raise


def call_name(method: str, path: str) -> str:
    """Return what Google calls a request, as its price list has it: `objects.insert`."""
    if path.startswith("/upload/"):
        return "objects.insert"
    if "/o/" in path:
        names = {"GET": "get", "DELETE": "delete", "POST": "rewrite"}
        return f"objects.{names.get(method, method)}"
    if path.endswith("/o"):
        return "objects.list"
    return "batch" if path.startswith("/batch") else f"buckets.{method.lower()}"


def _found(blob: Any) -> Found:
    updated = blob.updated
    return Found(
        str(blob.name),
        int(blob.size or 0),
        0.0 if updated is None else updated.timestamp(),
        int(blob.generation or 0),
        str((blob.metadata or {}).get(MARK, "")),
        str(blob.crc32c or ""),
    )
