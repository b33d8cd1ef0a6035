"""The place that `[rest]` serves, as the server and its operator's commands open it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.trash import TrashLayer
from backupgw.runtime.command import CommandError
from backupgw.runtime.settings import Settings

from . import quota
from .identification import place_folder
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
