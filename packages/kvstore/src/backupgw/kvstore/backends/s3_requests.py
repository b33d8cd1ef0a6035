"""The requests that a place makes of its bucket: one method each, nothing tried again.

Keys are whole: the place's path is the caller's to put before a name. Errors leave in the kernel's
family.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_plus

from ..layers.retry_reader import ReplacedMeanwhile
from . import s3_direct
from .base import Reader
from .body_reader import BodyReader
from .errors import BackendError, ObjectExists, ObjectNotFound, PermissionDenied
from .part_transfers import SentPart
from .s3_client import connect, content_md5
from .s3_direct import Direct, Got, NotDirect
from .s3_errors import TRANSLATED, code_of, translate
from .s3_settings import Settings

if TYPE_CHECKING:
    from botocore.session import Session
    from types_boto3_s3 import S3Client

T = TypeVar("T")

_MARK = "backupgw-write"
"""Metadata that tells one write from another."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")


@dataclass(frozen=True, slots=True)
class Found:
    """An object, as far as a listing or HEAD tells. `mtime` is in seconds since the epoch."""

    key: str
    size: int
    etag: str
    mtime: float
    mark: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing; `after` leads to the next, None where there is none."""

    found: Sequence[Found]
    prefixes: Sequence[str]
    after: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """A value in parts that nobody has completed yet."""

    key: str
    upload_id: str
    begun: float


class Requests:
    """One bucket. Safe for threads.

    Args:
        settings: where and how.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        self._made: tuple[S3Client, Session] | None = None
        self._short: Direct | None = None
        self._lock = threading.Lock()
        self._customer: dict[str, Any] = {}
        self._source_customer: dict[str, Any] = {}
        if (key := settings.sse_customer_key) is not None:
            self._customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key}
            self._source_customer = {
                "CopySourceSSECustomerAlgorithm": "AES256",
                "CopySourceSSECustomerKey": key,
            }

    @property
    def _client(self) -> S3Client:
        return self._connected[0]

    @property
    def _connected(self) -> tuple[S3Client, Session]:
        if self._made is None:
            self._made = connect(self._settings)
        return self._made

    def close(self) -> None:
        """Let go of the connections; the next request makes new ones."""
        with self._lock:
            short, self._short = self._short, None
        if short is not None:
            short.close()
        if self._made is not None:
            self._client.close()  # the client stays: it takes megabytes and a while to make

    def _directly(self, what: str, request: Callable[[Direct], T]) -> T:
        """Make a request the short way. Raises NotDirect where there is none."""
        try:
            with self._lock:
                if self._short is None:
                    client, session = self._connected
                    self._short = s3_direct.of_client(self._settings, session, client)
                short = self._short
            if short is None:
                raise NotDirect
            return request(short)
        except TRANSLATED as error:
            raise translate(error, what, self._settings.server) from error

    def _do(self, what: str, request: Callable[[S3Client], T]) -> T:
        try:
            return request(self._client)
        except TRANSLATED as error:
            raise translate(error, what, self._settings.server) from error

    # -- reading

    def head(self, key: str, what: str) -> Found | None:
        """Tell about an object, None where there is none."""
        try:
            answer = self._do(
                what,
                lambda client: client.head_object(Bucket=self._bucket, Key=key, **self._customer),
            )
        except ObjectNotFound:
            return None
        return Found(
            key,
            answer["ContentLength"],
            answer["ETag"],
            answer["LastModified"].timestamp(),
            answer.get("Metadata", {}).get(_MARK),
            answer.get("VersionId"),
        )

    def get(self, key: str, what: str, *, wanted: str | None, etag: str | None) -> Reader:
        """Read an object.

        Args:
            wanted: of which part, as a Range header has it; None for all.
            etag: what it must have, None for any.

        Raises:
            ObjectNotFound, ReadRangeError: as the service says.
            ReplacedMeanwhile: it has another etag.
        """
        try:
            got = self._get(key, what, wanted, etag)
        except ObjectExists as error:  # what a failed precondition means to writers
            raise ReplacedMeanwhile(f"{what}: it was replaced while it was read") from error
        span = _CONTENT_RANGE.match(got.span)
        whole = int(span[2]) if span else got.length
        if wanted is not None and span is None and not _all_of(wanted, got.length):
            got.body.close()
            raise BackendError(f"{what}: {self._settings.server} does not understand ranges")
        return BodyReader(
            what,
            got.body,
            item_size=whole,
            remaining=got.length,
            version=got.etag,
            errors=TRANSLATED,
            translate=lambda error: translate(error, what, self._settings.server),
        )

    def _get(self, key: str, what: str, wanted: str | None, etag: str | None) -> Got:
        headers = {} if wanted is None else {"range": wanted}
        if etag is not None:
            headers["if-match"] = etag
        with contextlib.suppress(NotDirect):
            return self._directly(what, lambda direct: direct.get(key, what, headers))
        extra: dict[str, Any] = {**self._customer}
        if wanted is not None:
            extra["Range"] = wanted
        if etag is not None:
            extra["IfMatch"] = etag
        answer = self._do(
            what, lambda client: client.get_object(Bucket=self._bucket, Key=key, **extra)
        )
        return Got(
            answer["Body"],
            answer["ContentLength"],
            answer.get("ContentRange", ""),
            answer["ETag"],
        )

    def page(
        self, prefix: str, what: str, *, folders: bool, after: str | None = None, most: int = 1000
    ) -> Page:
        """List objects.

        Args:
            prefix: of their keys.
            folders: whether keys with a further slash are told by their prefix up to it.
            after: the page before.
            most: entries at most.

        Raises:
            BackendDoesNotExist: there is no such bucket.
        """
        extra: dict[str, Any] = {"Delimiter": "/"} if folders else {}
        if after is not None:
            extra["ContinuationToken"] = after
        answer = self._do(
            what,
            lambda client: client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, MaxKeys=most, **extra
            ),
        )
        return Page(
            [
                Found(each["Key"], each["Size"], each["ETag"], each["LastModified"].timestamp())
                for each in answer.get("Contents", [])
            ],
            [each["Prefix"] for each in answer.get("CommonPrefixes", [])],
            answer.get("NextContinuationToken") if answer.get("IsTruncated") else None,
        )

    def keys(self, prefix: str, what: str) -> Iterator[Found]:
        """List all objects whose keys begin so, page by page."""
        after: str | None = None
        while True:
            page = self.page(prefix, what, folders=False, after=after)
            yield from page.found
            if (after := page.after) is None:
                return

    # -- writing

    def put(
        self,
        key: str,
        data: bytes | bytearray,
        what: str,
        *,
        if_absent: bool = False,
        mark: str | None = None,
        plain: bool = False,
    ) -> None:
        """Write an object by one request.

        Args:
            mark: what `head` tells of it afterwards.
            plain: without storage class and retention: it will not stay for long.

        Raises:
            ObjectExists: with if_absent, where the service knows that condition.
        """
        headers = self._headers(plain=plain, mark=mark)
        if if_absent:
            headers["if-none-match"] = "*"
        with contextlib.suppress(NotDirect):
            self._directly(what, lambda direct: direct.put(key, data, what, headers))
            return
        extra = self._kind(plain=plain, mark=mark)
        if if_absent:
            extra["IfNoneMatch"] = "*"
        if self._locks and not plain:
            extra["ContentMD5"] = content_md5(data)
        body: Any = data  # its stubs know no bytearray
        self._do(
            what,
            lambda client: client.put_object(Bucket=self._bucket, Key=key, Body=body, **extra),
        )

    def begin(self, key: str, what: str, *, mark: str | None, plain: bool = False) -> str:
        """Begin an object in parts, as `put` would write it; return the upload's id."""
        extra = self._kind(plain=plain, mark=mark)
        answer = self._do(
            what,
            lambda client: client.create_multipart_upload(Bucket=self._bucket, Key=key, **extra),
        )
        return answer["UploadId"]

    def put_part(
        self, key: str, upload_id: str, number: int, data: bytes | bytearray, what: str
    ) -> str:
        """Send a part; return its etag."""
        extra = {**self._customer}
        if self._locks:
            extra["ContentMD5"] = content_md5(data)
        body: Any = data
        answer = self._do(
            what,
            lambda client: client.upload_part(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=body,
                **extra,
            ),
        )
        return answer["ETag"]

    def complete(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[SentPart],
        what: str,
        *,
        if_absent: bool = False,
    ) -> None:
        """Make an object of its parts.

        Raises:
            ObjectExists: with if_absent, where the service knows that condition.
            ObjectNotFound: there is no such upload.
        """
        extra: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        self._do(
            what,
            lambda client: client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={
                    "Parts": [{"PartNumber": part.number, "ETag": part.tag} for part in parts]
                },
                **extra,
                **self._customer,
            ),
        )

    def abandon(self, key: str, upload_id: str, what: str) -> None:
        """Give an upload up; one that is gone is fine."""
        try:
            self._do(
                what,
                lambda client: client.abort_multipart_upload(
                    Bucket=self._bucket, Key=key, UploadId=upload_id
                ),
            )
        except ObjectNotFound:
            return

    def parts(self, key: str, upload_id: str, what: str) -> list[tuple[SentPart, float]]:
        """Return the parts of an upload, each with the time it came.

        Raises:
            ObjectNotFound: there is no such upload.
        """

        def request(client: S3Client) -> list[tuple[SentPart, float]]:
            pages = client.get_paginator("list_parts").paginate(
                Bucket=self._bucket, Key=key, UploadId=upload_id, **self._customer
            )
            return [
                (
                    SentPart(part["PartNumber"], part["Size"], part["ETag"]),
                    part["LastModified"].timestamp(),
                )
                for page in pages
                for part in page.get("Parts", [])
            ]

        return self._do(what, request)

    def uploads(self, prefix: str, what: str) -> list[Upload]:
        """Return the uploads below a prefix that nobody has completed."""

        def request(client: S3Client) -> list[Upload]:
            pages = client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=prefix, EncodingType="url"
            )
            return [
                Upload(
                    unquote_plus(each["Key"]) if page.get("EncodingType") == "url" else each["Key"],
                    each["UploadId"],
                    each["Initiated"].timestamp(),
                )
                for page in pages
                for each in page.get("Uploads", [])
            ]

        found = self._do(what, request)
        return [upload for upload in found if upload.key.startswith(prefix)]

    # -- within the service

    def copy(self, source: Found, target: str, what: str) -> None:
        """Copy an object of at most 5 GiB.

        Raises:
            ObjectNotFound: it is gone.
            ReplacedMeanwhile: it is another one by now.
        """
        extra = self._kind(plain=False, mark=None)
        del extra["Metadata"]
        self._from_source(
            what,
            lambda client: client.copy_object(
                Bucket=self._bucket,
                Key=target,
                CopySource={"Bucket": self._bucket, "Key": source.key},
                CopySourceIfMatch=source.etag,
                **extra,
                **self._source_customer,
            ),
        )

    def copy_part(
        self, source: Found, target: str, upload_id: str, number: int, span: range, what: str
    ) -> str:
        """Copy some bytes of an object as a part of another; return the part's etag.

        Raises:
            ObjectNotFound, ReplacedMeanwhile: as `copy`.
        """
        answer = self._from_source(
            what,
            lambda client: client.upload_part_copy(
                Bucket=self._bucket,
                Key=target,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": self._bucket, "Key": source.key},
                CopySourceRange=f"bytes={span.start}-{span.stop - 1}",
                CopySourceIfMatch=source.etag,
                **self._customer,
                **self._source_customer,
            ),
        )
        return answer["CopyPartResult"]["ETag"]

    def _from_source(self, what: str, request: Callable[[S3Client], T]) -> T:
        try:
            return self._do(what, request)
        except ObjectExists as error:
            raise ReplacedMeanwhile(f"{what}: it was replaced while it was copied") from error

    def lock(self, key: str, what: str) -> None:
        """See that an object is kept as long as `retention` says, where it says anything.

        Ceph 16 and moto forget what was said of it when an upload in parts began, and where it was
        copied to.
        """
        if self._settings.retention is not None:
            retention: Any = {
                "Mode": self._settings.lock_mode,
                "RetainUntilDate": self._retained_until(self._settings.retention),
            }
            self._do(
                what,
                lambda client: client.put_object_retention(
                    Bucket=self._bucket, Key=key, Retention=retention
                ),
            )

    # -- removing

    def delete(self, key: str, what: str, *, version: str | None = None, etag: str | None) -> None:
        """Remove an object, or one version of it; what is gone is fine.

        Args:
            etag: leave it where it has another; None for any.
        """
        extra: dict[str, Any] = {}
        if version is not None:
            extra["VersionId"] = version
        if etag is not None:
            extra["IfMatch"] = etag
        try:
            self._do(
                what, lambda client: client.delete_object(Bucket=self._bucket, Key=key, **extra)
            )
        except (ObjectNotFound, ObjectExists):
            return

    def delete_batch(self, keys: Sequence[tuple[str, str | None]], what: str) -> None:
        """Remove at most 1,000 objects, or versions of objects, by one request.

        Raises:
            BackendError: one could not be removed; the others may be.
            UnsupportedOperation: the service knows no batches.
        """
        objects: list[Any] = [
            {"Key": key} if version is None else {"Key": key, "VersionId": version}
            for key, version in keys
        ]
        answer = self._do(
            what,
            lambda client: client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
            ),
        )
        for failed in answer.get("Errors", []):
            code, said = failed.get("Code", ""), failed.get("Message", "")
            error = PermissionDenied if code == "AccessDenied" else BackendError
            raise error(
                f"{what}: {failed.get('Key')} was not removed: {said or code}",
                retryable=code in ("InternalError", "SlowDown", "ServiceUnavailable"),
            )

    def versions(self, prefix: str, what: str) -> Iterator[tuple[str, str | None]]:
        """List the key and id of all versions of all objects whose keys begin so, and of what
        marks some as deleted."""
        pages = iter(
            self._do(
                what,
                lambda client: client.get_paginator("list_object_versions").paginate(
                    Bucket=self._bucket, Prefix=prefix
                ),
            )
        )
        while (page := self._do(what, lambda _: next(pages, None))) is not None:
            for each in page.get("Versions", []):
                yield each["Key"], each["VersionId"]
            for mark in page.get("DeleteMarkers", []):
                yield mark["Key"], mark["VersionId"]

    # -- the bucket

    def create_bucket(self, what: str) -> None:
        """Make the bucket; one that is ours already is fine."""
        region = self._settings.region or self._client.meta.region_name
        extra: dict[str, Any] = {}
        if self._settings.amazon and region != "us-east-1":
            extra["CreateBucketConfiguration"] = {"LocationConstraint": region}
        if self._locks:
            extra["ObjectLockEnabledForBucket"] = True
        try:
            self._do(what, lambda client: client.create_bucket(Bucket=self._bucket, **extra))
        except BackendError as error:
            if code_of(error.__cause__) != "BucketAlreadyOwnedByYou":
                raise

    # -- what objects get

    @property
    def _locks(self) -> bool:
        return self._settings.retention is not None

    def _kind(self, *, plain: bool, mark: str | None) -> dict[str, Any]:
        settings = self._settings
        kind: dict[str, Any] = {
            "Metadata": {} if mark is None else {_MARK: mark},
            **self._customer,
        }
        if settings.sse is not None:
            kind["ServerSideEncryption"] = settings.sse
        if settings.sse_kms_key is not None:
            kind["SSEKMSKeyId"] = settings.sse_kms_key
        if plain:
            return kind
        if settings.storage_class is not None:
            kind["StorageClass"] = settings.storage_class
        if settings.retention is not None:
            kind["ObjectLockMode"] = settings.lock_mode
            kind["ObjectLockRetainUntilDate"] = self._retained_until(settings.retention)
        return kind

    def _headers(self, *, plain: bool, mark: str | None) -> dict[str, str]:
        """Return what `_kind` says, as headers; without customer's keys and locks."""
        settings = self._settings
        headers = {
            f"x-amz-meta-{_MARK}": mark,
            "x-amz-server-side-encryption": settings.sse,
            "x-amz-server-side-encryption-aws-kms-key-id": settings.sse_kms_key,
            "x-amz-storage-class": None if plain else settings.storage_class,
        }
        return {name: value for name, value in headers.items() if value is not None}

    @staticmethod
    def _retained_until(retention: float) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=retention)


def _all_of(wanted: str, length: int) -> bool:
    """Whether an answer without Content-Range can be the part that was asked for: the end of an
    object that is no longer."""
    return wanted.startswith("bytes=-") and length <= int(wanted.removeprefix("bytes=-"))
