"""The requests that a place makes of its bucket: one method each, nothing tried again.

Keys are whole: the place's path is the caller's to put before a name. Errors leave in the kernel's
family.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..layers.retry_reader import ReplacedMeanwhile
from .base import Reader
from .body_reader import BodyReader
from .errors import BackendError, ObjectExists, ObjectNotFound, PermissionDenied
from .s3_client import content_md5
from .s3_direct import Got, Sending
from .s3_errors import TRANSLATED, code_of, translate
from .s3_records import MARK, Found, Page
from .s3_told import NotDirect
from .s3_uploads import Uploads

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

T = TypeVar("T")

_OF_LISTINGS = {"Name", "IsTruncated", "MaxKeys", "KeyCount", "Contents", "CommonPrefixes"}
"""What the answer to a listing has some of, whoever's S3 it is."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")


class Requests(Uploads):
    """One bucket. Safe for threads; the arguments are those of `Asking`."""

    # -- reading

    def head(self, key: str, what: str) -> Found | None:
        """Tell about an object, None where there is none."""
        with contextlib.suppress(NotDirect):
            return self._directly(what, lambda direct: direct.head(key, what))
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
            answer.get("Metadata", {}).get(MARK),
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
        if not answer.keys() & _OF_LISTINGS:
            kind = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("content-type", "")
            came = ": a web page came" if kind.startswith("text/html") else ""
            raise BackendError(f"{what}: it is not S3 that answers{came}")
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
        digest: str | None = None,
        sending: Sending | None = None,
    ) -> None:
        """Write an object by one request.

        Args:
            mark: what `head` tells of it afterwards.
            plain: without storage class and retention: it will not stay for long.
            digest: SHA-256 of the data in hex, where it is known.
            sending: what `send` began with the same terms.

        Raises:
            ObjectExists: with if_absent, where the service knows that condition.
        """
        headers = self._written(plain=plain, mark=mark, if_absent=if_absent)
        with contextlib.suppress(NotDirect):
            self._directly(
                what,
                lambda direct: direct.put(key, data, what, headers, digest=digest, sending=sending),
            )
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

    def send(
        self,
        key: str,
        size: int,
        digest: str,
        what: str,
        *,
        if_absent: bool = False,
        mark: str | None = None,
    ) -> Sending | None:
        """Begin to write an object that is still coming, as `put` would, which ends it; None where
        it cannot be signed before all of it is there.

        Args:
            digest: its SHA-256 in hex.
        """
        headers = self._written(plain=False, mark=mark, if_absent=if_absent)
        try:
            return self._directly(what, lambda direct: direct.send(key, size, digest, headers))
        except NotDirect:
            return None

    def look_and_put(
        self, key: str, data: bytes | bytearray, digest: str, what: str, *, mark: str
    ) -> tuple[Found | None, str | None] | None:
        """Write an object, whatever is there; return what was, None for nothing, and the new one's
        etag, None where it may not be stored. None where that cannot be told, or not by one round
        trip."""
        headers = self._written(plain=False, mark=mark, if_absent=False)
        try:
            return self._directly(
                what, lambda direct: direct.look_and_put(key, data, headers, digest)
            )
        except NotDirect:
            return None

    @property
    def short(self) -> bool:
        """Whether objects go the short way, and so can be sent while they come."""
        try:
            return self._directly("", lambda _: True)
        except NotDirect:
            return False

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
        if version is None and etag is None:
            try:
                return self._directly(what, lambda direct: direct.delete(key, what))
            except ObjectNotFound:
                return None
            except NotDirect:
                pass  # the library has to
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
            return None
        return None

    def look_and_delete(self, key: str, what: str) -> Found | Literal[False] | None:
        """Remove an object; return what it was, False for nothing, None where that cannot be told:
        it may be gone.

        Raises:
            NotDirect: not by one round trip; nothing was asked.
        """
        return self._directly(what, lambda direct: direct.look_and_delete(key))

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


def _all_of(wanted: str, length: int) -> bool:
    """Whether an answer without Content-Range can be the part that was asked for: the end of an
    object that is no longer."""
    return wanted.startswith("bytes=-") and length <= int(wanted.removeprefix("bytes=-"))
