"""The provider `backblaze`: a bucket at Backblaze B2, by its own protocol."""

from __future__ import annotations

from urllib.parse import quote

from .calls import FREE, CostClasses
from .fields import GIB, MIB, ConfigInvalid, one_of, secret, size, text
from .place_provider import PlacePlan, PlaceProvider, folder_in

LEAST_PART = 5_000_000
MOST_HELD = 256 * MIB
"""Bytes of parts that are held, unless one part alone is more."""


class BackblazeProvider(PlaceProvider):
    """Files in a bucket."""

    title = "Backblaze B2"
    scheme = "backblaze"
    libraries = ("b2sdk",)
    extra = "b2"
    credentials = ("application_key_id", "application_key")
    costs = CostClasses(
        {
            "class B": ("b2_download_file", "b2_get_file_info"),
            "class C": (
                "b2_authorize_account",
                "b2_copy_",
                "b2_create_",
                "b2_get_download_authorization",
                "b2_list_",
                "b2_update_",
            ),
        },
        f"class A, {FREE}",
        "https://www.backblaze.com/cloud-storage/transaction-pricing",
    )
    fields = (
        text("container", "the bucket", "homeserver-backups", also=("bucket", "bucket_name")),
        text("folder", "a folder in the bucket"),
        text(
            "application_key_id",
            "the keyID of an application key",
            also=("key_id", "username", "api_key"),
        ),
        secret(
            "application_key",
            "the applicationKey that belongs to it",
            also=("password", "secret_key"),
        ),
        one_of(
            "deletion",
            "remove: for good; hide: a lifecycle rule of the bucket removes it later",
            ("remove", "hide"),
            "remove",
        ),
        one_of(
            "versions",
            "newest: a replaced file's old version is removed; all: it is kept",
            ("newest", "all"),
            "newest",
        ),
        text("realm", "another service that speaks B2's protocol: its URL", "production"),
        size("upload_chunk_size", "bytes of a part of a large file", 100 * MIB, LEAST_PART, GIB),
    )

    def plan(self) -> PlacePlan:
        value = self.values
        for name in ("application_key_id", "application_key"):
            if not value[name]:
                raise ConfigInvalid(
                    name, "is missing: make an application key on Backblaze's page Application Keys"
                )
        return PlacePlan(
            f"backblaze:{quote(folder_in(value['container'], value['folder']))}",
            {
                **self.repeating(),
                "key_id": value["application_key_id"],
                "application_key": value["application_key"],
                "realm": value["realm"],
                "delete": value["deletion"],
                "versions": value["versions"],
                "part_size": self.upload_chunk_size,
                "threads": self.connection_pool_size,
                "memory": max(MOST_HELD, 2 * self.upload_chunk_size),
                "timeout": self.timeout,
                "on_call": self.calls.count,
            },
            repeats_writes=True,
            part_size=self.upload_chunk_size,
        )
