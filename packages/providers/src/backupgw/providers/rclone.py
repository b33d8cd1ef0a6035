"""The provider `rclone`: any of the services that rclone knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from .fields import ConfigInvalid, path, text
from .place_provider import PlacePlan, PlaceProvider


class RcloneProvider(PlaceProvider):
    """Files in a folder of a remote of rclone's settings."""

    title = "rclone"
    scheme = "rclone"
    programs: ClassVar[Mapping[str, str]] = {
        "rclone": "1.68 or newer, from https://rclone.org/install/ (Debian's is older)"
    }
    credentials = ("username", "password")
    fields = (
        text("container", "the remote and the folder, such as mydrive:backups", required=True,
             also=("remote",)),
        text("folder", "a folder in it"),
        path("config_file", "rclone's settings, in the place of the user's", also=("config",)),
        path("program", "of rclone, where it is not in PATH"),
    )  # fmt: skip

    def plan(self) -> PlacePlan:
        value = self.values
        remote, colon, root = value["container"].partition(":")
        if not remote or not colon:
            raise ConfigInvalid(
                "container", "must name a remote and a folder, such as mydrive:backups"
            )
        folder = "/".join(filter(None, (root.rstrip("/"), (value["folder"] or "").strip("/"))))
        options = {
            option: value[name]
            for name, option in (("config_file", "config"), ("program", "binary"))
            if value[name] is not None
        }
        return PlacePlan(
            f"rclone:{remote}:{folder}", {**self.repeating(), **options}, repeats_writes=True
        )
