"""The types of volume that the gateway has by itself: any place of the kernel, and a folder of a
file system."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from backupgw.kvstore.registry import open_place
from backupgw.runtime.settings import Settings

from ..settings import VolumeSettings
from .base import Volume


def place(settings: Settings, name: str, volume: VolumeSettings) -> Volume:
    """Return a volume on `[places.NAME]`, with the layers that the settings put around it."""
    used = volume.place or name
    place_settings = settings.places[used]
    url = place_settings.url
    plain = url.startswith("file:") and not place_settings.layers
    # With layers in between, who mounted the folder would go around them.
    root = Path(unquote(urlsplit(url).path)) if plain else None
    return Volume(
        name=name,
        type="vfs" if plain else urlsplit(url).scheme,
        backend=settings.open_place(used),
        local_root=root,
        nfs=volume.nfs if plain else None,
        fuse=volume.fuse,
        advisory_quota=volume.advisory_quota,
    )


def fs(_settings: Settings, name: str, volume: VolumeSettings) -> Volume:
    """Return a volume in a folder of this machine, local or mounted."""
    assert volume.path is not None  # the settings' model has seen to it
    return Volume(
        name=name,
        type="vfs",
        backend=open_place(f"file://{quote(str(volume.path))}"),
        local_root=volume.path,
        nfs=volume.nfs,
        fuse=volume.fuse,
        advisory_quota=volume.advisory_quota,
    )
