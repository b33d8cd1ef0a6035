"""The provider `local`: a folder of this machine, a second disk or a mounted NAS."""

from __future__ import annotations

from urllib.parse import quote

from .fields import one_of, path, text
from .place_provider import PlacePlan, PlaceProvider


class LocalProvider(PlaceProvider):
    """Files in a folder."""

    title = "Local folder"
    scheme = "file"
    credentials = ("username", "password")
    fields = (
        path(
            "container",
            "the folder that holds the backups, such as /mnt/nas/backups",
            required=True,
            also=("path", "base_path", "backup_path", "directory"),
        ),
        text("folder", "a folder in it"),
        one_of(
            "durability",
            "full: on the disk before it counts as stored; fast: the system may write it later",
            ("full", "fast"),
            "full",
        ),
    )

    def plan(self) -> PlacePlan:
        folder = "/".join(
            filter(
                None,
                (self.values["container"].rstrip("/"), (self.values["folder"] or "").strip("/")),
            )
        )
        return PlacePlan(
            f"file://{quote(folder or '/')}", {"durability": self.values["durability"]}
        )
