"""The provider `aws_s3`: a bucket at Amazon, or wherever S3's protocol is spoken."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from .calls import FREE, CostClasses
from .fields import GIB, MIB, ConfigInvalid, one_of, path, secret, size, switch, text, url
from .place_provider import PlacePlan, PlaceProvider, folder_in

MOST_HELD = 256 * MIB
"""Bytes of the parts of one file that are under way at a time, unless one part alone is more."""


class AWSS3Provider(PlaceProvider):
    """Files as objects in a bucket."""

    title = "Amazon S3"
    processes = True
    scheme = "s3"
    libraries = ("boto3",)
    extra = "s3"
    credentials = ("access_key", "secret_key")
    costs = CostClasses(
        {
            "PUT, COPY, POST, LIST": ("Put", "Copy", "Create", "Complete", "UploadPart", "List"),
            FREE: ("Delete", "Abort"),
        },
        "GET and others",
        "https://aws.amazon.com/s3/pricing/",
    )
    fields = (
        text(
            "container",
            "the bucket",
            "homeserver-backups",
            also=("bucket", "bucket_name"),
        ),
        text("folder", "a folder in the bucket"),
        text("access_key", "the access key's id; none: what AWS's own tools would use",
             also=("access_key_id", "aws_access_key_id", "api_key", "username")),
        secret("secret_key", "the access key's secret",
               also=("secret_access_key", "aws_secret_access_key", "password")),
        secret("session_token", "of a key that lives for a while"),
        text("profile", "a profile of ~/.aws, in the place of a key"),
        url("endpoint", "another service's URL, such as https://s3.example.org",
            also=("endpoint_url",)),
        text("storage_class", "of what is stored: STANDARD_IA, GLACIER_IR, …"),
        one_of("sse", "encryption by the service", ("AES256", "aws:kms", "aws:kms:dsse"), None),
        text("sse_kms_key", "which key of KMS"),
        text("retention", 'object lock: "30 days" for which nobody can remove what was stored'),
        one_of("retention_mode", "who may end it", ("governance", "compliance"), "governance"),
        one_of("style", "where requests name the bucket", ("auto", "path", "virtual"), "auto"),
        path("cacert", "file of the authorities that may sign the service's certificate"),
        switch("delete_versions", "delete versions for good, in a bucket that keeps them",
               default=False),
        size("upload_chunk_size", "bytes of a part of a large file", 100 * MIB, 5 * MIB, GIB),
    )  # fmt: skip

    def plan(self) -> PlacePlan:
        value = self.values
        given = partial(_given, value)
        if bool(value["access_key"]) != bool(value["secret_key"]):
            missing, there = "secret_key", "access_key"
            if value["secret_key"]:
                missing, there = there, missing
            raise ConfigInvalid(
                missing,
                f"is missing, but {there} is set; `backupgw provider set-credentials NAME -u ID` "
                "takes both, the key's id and its secret",
            )
        chunk, pool = self.upload_chunk_size, self.connection_pool_size
        # A part is in memory until it has arrived.
        parallel = max(1, min(pool, MOST_HELD // chunk))
        return PlacePlan(
            f"s3:{value['endpoint'] or ''}/{quote(folder_in(value['container'], value['folder']))}",
            {
                **self.repeating(),
                **given("profile", "session_token", "region", "storage_class", "sse"),
                **given("sse_kms_key", "retention", "cacert"),
                **({"access_key_id": value["access_key"]} if value["access_key"] else {}),
                **({"secret_access_key": value["secret_key"]} if value["secret_key"] else {}),
                "retention_mode": value["retention_mode"],
                "style": value["style"],
                "delete_versions": value["delete_versions"],
                "part_size": chunk,
                "parallel": parallel,
                "connections": max(pool, 2),
                "timeout": self.timeout,
                "on_call": self.calls.count,
            },
            repeats=True,
            repeats_writes=True,
            part_size=self.upload_chunk_size,
        )


def _given(values: dict[str, object], *names: str) -> dict[str, object]:
    return {name: values[name] for name in names if values[name] is not None}
