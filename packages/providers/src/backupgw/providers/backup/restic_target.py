"""restic on a provider, through a restserver of its own on that provider's place.

The repository is `restic/` in the container: another machine, or restic itself behind any server of
its protocol, finds it there. Sets are told apart by a tag, `set:NAME`, machines by restic's host.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from backupgw.runtime.command import CommandError
from backupgw.runtime.restic import (
    Limits,
    MachineTurn,
    OwnServer,
    PlaceTurn,
    Repository,
    Restic,
    StopSignal,
    Turn,
    WrongPassword,
    ensure_repository,
    find_program,
)
from backupgw.runtime.settings import Settings
from backupgw.runtime.settings_models import PlaceSettings

from ..calls import CallLog
from ..place_provider import PlaceProvider
from .site import Site, Target

REPOSITORY = "restic"
TAG = "set:"
LOCK_WAIT = 600.0
"""Seconds that a command waits for another that has the repository for itself."""


class NoRepository(CommandError):
    """There is none at this provider."""


def has_repository(target: Target) -> bool:
    """Whether there is one. Raises BackendError: nobody can say."""
    return target.place.info(f"{REPOSITORY}/config").exists


@contextlib.contextmanager
def restic_at(
    site: Site,
    target: Target,
    *,
    stop: StopSignal,
    make: bool = False,
    compression: str | None = None,
) -> Iterator[Restic]:
    """Yield restic on a provider's repository; the same server serves until the target ends.

    Args:
        make: the repository, where there is none, and its password.

    Raises:
        NoRepository: there is none.
        CommandError, BackendError: it cannot be used; ResticErrors among them.
    """
    try:
        if target.restic is None:
            target.restic = _open(site, target, stop, make=make)
        yield dataclasses.replace(target.restic, limits=Limits(compression=compression))
    except WrongPassword as error:
        raise CommandError(
            f"{target.name}: the repository was made with another password than this "
            "machine's; `backupgw backup keys import` brings it from the sheet that you kept"
        ) from error


def _open(site: Site, target: Target, stop: StopSignal, *, make: bool) -> Restic:
    program = find_program(site.backup.restic)
    there = has_repository(target)
    if not there and not make:
        raise NoRepository(f"{target.name}: there is no restic repository")
    # Never a new password for what is there: it would open nothing.
    password = site.keys.restic_password(make=not there)
    name = f"provider-{target.name}"
    calls = site.session.state(target.name).call_log()
    settings = with_place(site.settings, name, target.provider, calls)
    server = target.held.enter_context(OwnServer(settings, name))
    restic = Restic(
        program,
        Repository(server.url(REPOSITORY), password),
        cache=site.folder / "cache",
        lock_wait=LOCK_WAIT,
    )
    if not there:
        turns: list[Turn] = [
            MachineTurn(site.folder / "locks", name),
            PlaceTurn(target.provider.make_place(), REPOSITORY),
        ]
        ensure_repository(restic, turns, stop=stop)
    return restic


def with_place(
    settings: Settings, name: str, provider: PlaceProvider, on_call: CallLog
) -> Settings:
    """Return settings that have a provider as one of their places.

    Args:
        on_call: is told of the requests to the provider's service, where it counts any.

    Raises:
        CommandError: the place's options cannot be written as settings.
    """
    plan = provider.plan()
    options = dict(plan.options)
    if "on_call" in options:
        options["on_call"] = on_call  # another process has no use for functions of this one
    place = PlaceSettings.model_validate({"url": plan.url, "layers": provider.layers(), **options})
    log = settings.log
    if settings.origin("log", "level").kind == "default":
        # What the server does is not what a backup's owner wants to read, or gets by mail.
        log = log.model_copy(update={"level": "warning"})
    return dataclasses.replace(settings, log=log, places={**settings.places, name: place})
