"""The provider `dropbox`: a folder of a Dropbox account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .calls import CostClasses
from .fields import MIB, ConfigInvalid, checked, path, secret, size, text
from .place_provider import PlacePlan, PlaceProvider, folder_in

BLOCK = 4 * MIB
MOST_PART = 148 * MIB
"""The largest multiple of BLOCK below the 150 MB that a request may have
(https://www.dropbox.com/developers/documentation/http/documentation#files-upload)."""


class DropboxProvider(PlaceProvider):
    """Files in a folder of Dropbox."""

    title = "Dropbox"
    scheme = "dropbox"
    libraries = ("dropbox",)
    extra = "dropbox"
    credentials = ("app_key", "app_secret")
    costs = CostClasses(
        {}, "not billed, limited", "https://developers.dropbox.com/dbx-performance-guide"
    )
    fields = (
        text("container", "the folder", "homeserver-backups"),
        text("folder", "a folder in it"),
        text(
            "app_key", "of an app made on Dropbox's page App Console", also=("username", "api_key")
        ),
        secret(
            "app_secret", "of that app; not needed where it is a public one", also=("secret_key",)
        ),
        secret("refresh_token", "the grant; `backupgw provider connect` gets it"),
        secret("access_token", "instead of it, for a try: it lives four hours", also=("password",)),
        text("endpoint", "URL of a server that stands for all of Dropbox's"),
        path("cacert", "file of the authorities that may sign the servers' certificates"),
        size("upload_chunk_size", "bytes of one request of an upload", 100 * MIB, BLOCK, MOST_PART),
    )

    @classmethod
    def grant(cls, config: Mapping[str, Any]) -> tuple[str, dict[str, object]]:
        values = checked(cls.all_fields(), config)
        names = ("app_key", "app_secret", "endpoint", "cacert")
        return "dropbox:", {name: values[name] for name in names if values[name] is not None}

    def plan(self) -> PlacePlan:
        value = self.values
        if not (value["refresh_token"] or value["access_token"]):
            raise ConfigInvalid(
                "refresh_token", "is missing: `backupgw provider connect dropbox` gets one"
            )
        if value["refresh_token"] and not value["app_key"]:
            raise ConfigInvalid("app_key", "is missing: a refresh token belongs to an app")
        names = ("refresh_token", "app_key", "app_secret", "endpoint", "cacert")
        options = {name: value[name] for name in names if value[name] is not None}
        if not value["refresh_token"]:
            options = {"access_token": value["access_token"]} | {
                name: options[name] for name in ("endpoint", "cacert") if name in options
            }
        return PlacePlan(
            f"dropbox:{quote(folder_in(value['container'], value['folder']))}",
            {
                **self.repeating(),
                **options,
                # Dropbox takes nothing else; no part is larger than was asked for.
                "part_size": self.upload_chunk_size // BLOCK * BLOCK,
                "connections": self.connection_pool_size,
                "timeout": self.timeout,
                "on_call": self.calls.count,
            },
            repeats=True,
            repeats_writes=True,
            part_size=self.upload_chunk_size,
        )
