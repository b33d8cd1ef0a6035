"""From the settings to volumes, by the entry points that packages register."""

from __future__ import annotations

from importlib.metadata import entry_points

from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_errors import did_you_mean

from ..settings import VfsSettings, VolumeSettings
from .base import Volume

GROUP = "backupgw.volumes"


def types() -> list[str]:
    """Return the types of volume that are installed."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def mistake_in(settings: Settings, name: str, volume: VolumeSettings) -> str | None:
    """Return what is wrong with a volume's settings, None where nothing is."""
    if volume.type not in types():
        return f"there is no type {volume.type!r}; {did_you_mean(volume.type, types())}"
    used = volume.place or name
    if volume.type == "place" and used not in settings.places:
        return f"there is no place {used!r}; {did_you_mean(used, settings.places)}"
    return None


def volumes_of(settings: Settings) -> dict[str, Volume]:
    """Return the volumes by name, not open.

    Raises:
        SettingsError: one of them cannot be.
        BackendError, SecretError: its place cannot be made.
    """
    found: dict[str, Volume] = {}
    for name, volume in settings.section("vfs", VfsSettings).all_volumes.items():
        if (wrong := mistake_in(settings, name, volume)) is not None:
            raise settings.mistake(wrong, "vfs", "volumes", name)
        entry = next(entry for entry in entry_points(group=GROUP) if entry.name == volume.type)
        found[name] = entry.load()(settings, name, volume)
    return found
