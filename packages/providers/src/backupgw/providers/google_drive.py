"""The provider `google_drive`: a folder of Google Drive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .calls import CostClasses
from .fields import ConfigInvalid, checked, one_of, path, secret, switch, text
from .place_provider import PlacePlan, PlaceProvider, folder_in

UNIT = 256 << 10
"""Parts are a multiple of this (https://developers.google.com/workspace/drive/api/guides/manage-uploads)."""


class GoogleDriveProvider(PlaceProvider):
    """Files in a folder of Drive."""

    title = "Google Drive"
    scheme = "gdrive"
    libraries = ("googleapiclient", "google_auth_oauthlib")
    extra = "gdrive"
    credentials = ("client_id", "client_secret")
    costs = CostClasses(
        {},
        "not billed, limited",
        "https://developers.google.com/workspace/drive/api/guides/limits",
    )
    fields = (
        text("container", "the folder", "homeserver-backups", also=("folder_name",)),
        text("folder", "a folder in it"),
        text("drive_id", "of a shared drive, or of a folder, that the container lies in",
             also=("folder_id", "parent_id")),
        switch("shared_drive", "whether drive_id is that of a shared drive", default=False),
        text("client_id", "of an OAuth client of yours, of the type Desktop app",
             also=("username",)),
        secret("client_secret", "that belongs to it", also=("password", "secret_key")),
        secret("refresh_token", "the grant; `backupgw provider connect` gets it"),
        secret("service_account",
               "instead: a service account's key, its JSON or the path of the file with it",
               also=("credentials_file", "credentials_path")),
        text("subject", "whom the service account acts for"),
        one_of("scope", "drive.file: what this program has made; drive: all",
               ("drive.file", "drive"), None),
        switch("trash", "what is deleted goes to Drive's trash", default=False),
        text("endpoint", "URL of a server that stands for all of Google's"),
        path("cacert", "file of the authorities that may sign the servers' certificates"),
    )  # fmt: skip

    @classmethod
    def grant(cls, config: Mapping[str, Any]) -> tuple[str, dict[str, object]]:
        values = checked(cls.all_fields(), config)
        names = ("client_id", "client_secret", "scope", "endpoint", "cacert")
        return "gdrive:", {name: values[name] for name in names if values[name] is not None}

    def plan(self) -> PlacePlan:
        value = self.values
        if not (value["refresh_token"] or value["service_account"]):
            raise ConfigInvalid(
                "refresh_token",
                "is missing: `backupgw provider connect google_drive` gets one; or give a "
                "service_account",
            )
        names = ("subject", "scope", "endpoint", "cacert") + (
            ("service_account",)
            if value["service_account"]
            else ("refresh_token", "client_id", "client_secret")
        )
        options = {name: value[name] for name in names if value[name] is not None}
        part = self.upload_chunk_size // UNIT * UNIT
        root = f"//{value['drive_id']}/" if value["drive_id"] else ""
        return PlacePlan(
            f"gdrive:{root}{quote(folder_in(value['container'], value['folder']))}",
            {
                **self.repeating(),
                **options,
                "shared_drive": value["shared_drive"],
                "trash": value["trash"],
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
