"""The place that `[rest]` serves, as the server and its operator's commands open it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.trash import TrashLayer
from backupgw.runtime.command import CommandError
from backupgw.runtime.settings import Settings

from . import quota
from .identification import place_folder
from .paths import TYPES
from .settings import RestSettings


def place_of(settings: Settings) -> Backend:
    """Return the place with the layers around it that its section names, not open.

    Raises:
        SettingsError: limits would not see into its trash.
        BackendError: its URL or options are not what the backend or a layer takes.
    """
    rest = settings.section("rest", RestSettings)
    place = settings.places[rest.place]
    names = [layer.layer for layer in place.layers]
    if rest.limits() and "trash" in names[1:]:
        raise settings.mistake(
            f"what lies in the trash would not count towards the limits in [rest]: they must lie "
            f"directly around it; remove {', '.join(names[: names.index('trash')])}, or the limits",
            *("places", rest.place, "layers"),
        )
    if rest.group_accessible_repos and place.url.startswith("file:"):
        modes = {"file_mode": 0o660, "folder_mode": 0o770}
        places = {**settings.places, rest.place: place.model_copy(update=modes)}
        settings = dataclasses.replace(settings, places=places)
    return settings.open_place(rest.place)


def has_trash(settings: Settings) -> bool:
    """Whether the place keeps what is deleted."""
    place = settings.places[settings.section("rest", RestSettings).place]
    return any(layer.layer == "trash" for layer in place.layers)


def trash_layer(place: Backend) -> TrashLayer | None:
    """Return the trash among a place's layers."""
    while isinstance(place, Layer):
        if isinstance(place, TrashLayer):
            return place
        place = place.inner
    return None


def disk_of(place: Backend) -> PosixFS | None:
    """Return the folder that a place lies in, beneath its layers."""
    while isinstance(place, Layer):
        place = place.inner
    return place if isinstance(place, PosixFS) else None


def lies_elsewhere(place: Backend, repo: str) -> bool:
    """Whether parts of a repository are links to another file system: nothing is moved from there
    to the trash or back, but copied, and so its times say when."""
    disk = disk_of(place)
    if disk is None:
        return False
    root = Path(disk.path)
    here = root.stat().st_dev
    for part in ("", *TYPES):
        with contextlib.suppress(FileNotFoundError):
            if (root / repo / part).stat().st_dev != here:
                return True
    return False


@contextmanager
def opened(settings: Settings) -> Iterator[Backend]:
    """Open the place as the server has it: what changes there is accounted where there are limits.

    Raises:
        BackendError: it cannot be used.
        CommandError: the ledger of the accounts cannot be had.
    """
    backend = place_of(settings)
    limited = quota.limited(settings, backend) if quota.is_counted(settings) else None
    if limited is None:
        with backend:
            yield backend
        return
    limited.ledger.open()
    with contextlib.closing(limited.ledger), limited:
        yield limited


@contextmanager
def uncached(settings: Settings, place: Backend) -> Iterator[Backend]:
    """Open the place without its cache, for who wants to know what is really there.

    Args:
        place: open, as the server has it; given again where there is no cache.
    """
    name = settings.section("rest", RestSettings).place
    found = settings.places[name]
    layers = [layer for layer in found.layers if layer.layer != "cache"]
    if len(layers) == len(found.layers):
        yield place
        return
    places = {**settings.places, name: found.model_copy(update={"layers": layers})}
    with dataclasses.replace(settings, places=places).open_place(name) as source:
        yield source


def refuse_foreign_user(settings: Settings) -> None:
    """Refuse to change a folder of another user's as root: what root makes, the service cannot use.

    Raises:
        CommandError: tells as whom to run it.
    """
    folder = place_folder(settings)
    if folder is None or os.geteuid() != 0:
        return
    try:
        owner = folder.stat().st_uid
    except OSError:
        return  # opening the place will say what is wrong
    if owner != 0:
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise CommandError(
            f"{folder} belongs to {name}, and what root makes there the server could not use; "
            f"run it as that user: sudo -u {name} backupgw …"
        )
