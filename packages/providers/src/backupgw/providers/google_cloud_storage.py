"""The provider `google_cloud_storage`: a bucket of Google Cloud Storage."""

from __future__ import annotations

from urllib.parse import quote

from .calls import FREE, CostClasses
from .fields import path, secret, text
from .place_provider import PlacePlan, PlaceProvider, folder_in

UNIT = 256 << 10
"""Parts are a multiple of this (https://cloud.google.com/storage/docs/performing-resumable-uploads)."""


class GoogleCloudStorageProvider(PlaceProvider):
    """Files as objects in a bucket."""

    title = "Google Cloud Storage"
    scheme = "gs"
    libraries = ("google.cloud.storage",)
    extra = "gcs"
    credentials = ("project", "service_account")
    costs = CostClasses(
        {
            "class A": ("objects.insert", "objects.list", "objects.rewrite", "buckets."),
            "class B": ("objects.get", "buckets.get"),
            FREE: ("objects.delete", "oauth", "token"),
        },
        "class A",
        "https://cloud.google.com/storage/pricing#operations-pricing",
    )
    fields = (
        text("container", "the bucket", "homeserver-backups", also=("bucket", "bucket_name")),
        text("folder", "a folder in the bucket"),
        text("project", "that a new bucket belongs to", also=("project_id", "username")),
        secret(
            "service_account",
            "a service account's key: its JSON, or the path of the file with it",
            also=("credentials_file", "credentials_path", "password", "secret_key"),
        ),
        text("storage_class", "of what is stored: NEARLINE, COLDLINE, …"),
        text("endpoint", "URL of the API, where it is not Google's"),
        path("cacert", "file of the authorities that may sign the service's certificate"),
    )

    def plan(self) -> PlacePlan:
        value = self.values
        names = ("project", "service_account", "storage_class", "endpoint", "cacert")
        options = {name: value[name] for name in names if value[name] is not None}
        if value["region"] is not None:
            options["location"] = value["region"]
        part = self.upload_chunk_size // UNIT * UNIT
        return PlacePlan(
            f"gs://{quote(folder_in(value['container'], value['folder']))}",
            {
                **self.repeating(),
                **options,
                "part_size": part,
                "memory": 2 * part,
                "connections": self.connection_pool_size,
                "timeout": self.timeout,
                "on_call": self.calls.count,
            },
            repeats=True,
            repeats_writes=True,
            part_size=part,
        )
