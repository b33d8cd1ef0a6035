"""The provider `drime`: a folder of a workspace of Drime."""

from __future__ import annotations

from urllib.parse import quote

from .calls import CostClasses
from .fields import GIB, MIB, ConfigInvalid, secret, size, switch, text, whole
from .place_provider import PlacePlan, PlaceProvider, folder_in


class DrimeProvider(PlaceProvider):
    """Files in a folder of a workspace."""

    title = "Drime"
    scheme = "drime"
    libraries = ("pydrime",)
    extra = "drime"
    credentials = ("username", "api_key")
    costs = CostClasses({}, "not billed, limited", "https://drime.cloud")
    fields = (
        text("container", "the folder", "homeserver-backups"),
        text("folder", "a folder in it"),
        secret("api_key", "of the account", also=("password", "secret_key")),
        whole("workspace_id", "the workspace's number, 0 for the personal one", 0, 0, 1 << 53),
        switch("trash", "what is deleted goes to Drime's trash, and counts there", default=False),
        text("api_url", "base of the API, where it is not Drime's own"),
        size("upload_chunk_size", "bytes of a part of a large file", 100 * MIB, 5 * MIB, GIB),
    )

    def plan(self) -> PlacePlan:
        value = self.values
        if not value["api_key"]:
            raise ConfigInvalid("api_key", "is missing: make one in Drime's account settings")
        folder = quote(folder_in(value["container"], value["folder"]))
        return PlacePlan(
            f"drime://{value['workspace_id']}/{folder}",
            {
                **self.repeating(),
                "api_key": value["api_key"],
                **({"api_url": value["api_url"]} if value["api_url"] else {}),
                "trash": value["trash"],
                "part_size": self.upload_chunk_size,
                "threads": self.connection_pool_size,
                "timeout": self.timeout,
                "on_call": self.calls.count,
            },
            repeats=True,
            repeats_writes=True,
            part_size=self.upload_chunk_size,
        )
