"""Values in parts: the requests of an upload, nothing tried again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from .errors import ObjectNotFound
from .part_transfers import SentPart
from .s3_asking import Asking
from .s3_client import content_md5

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class Upload:
    """A value in parts that nobody has completed yet."""

    key: str
    upload_id: str
    begun: float


class Uploads(Asking):
    """The uploads to one bucket; the arguments are those of `Asking`."""

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
