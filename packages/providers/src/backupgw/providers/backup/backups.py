"""The backups that providers hold, of both kinds, in one list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from backupgw.runtime.command import CommandError
from backupgw.runtime.restic import Snapshot, StopSignal

from . import archives
from .archives import Archive
from .restic_target import TAG, has_repository, restic_at
from .site import Site, Target


@dataclass(frozen=True)
class Backup:
    """A backup at a provider.

    Attributes:
        id: by which people name it: the first digits of a snapshot's, the time of an archive.
        size: of the files in it for a snapshot (None where restic does not tell), as it is stored
            for an archive; bytes.
        held: what it is there.
    """

    provider: str
    set: str
    host: str
    id: str
    time: datetime
    size: int | None
    held: Snapshot | Archive

    @property
    def kind(self) -> str:
        """ "restic" or "archive"."""
        return "archive" if isinstance(self.held, Archive) else "restic"


def find(
    site: Site,
    target: Target,
    *,
    stop: StopSignal,
    set_name: str | None = None,
    host: str | None = None,
) -> list[Backup]:
    """Return the backups that a provider has, oldest first.

    Args:
        set_name, host: only these; None for all.

    Raises:
        CommandError, BackendError: it cannot be found out.
    """
    found = list(_archives(target, set_name, host))
    if has_repository(target):
        with restic_at(site, target, stop=stop) as restic:
            snapshots = restic.snapshots(host=host, locking=False, stop=stop)
        found += of_snapshots(target.name, snapshots, set_name)
    return sorted(found, key=lambda backup: backup.time)


def _archives(target: Target, set_name: str | None, host: str | None) -> Iterator[Backup]:
    for each in archives.find(target.place, host=host, set_name=set_name):
        yield Backup(target.name, each.set, each.host, each.id, each.time, each.size, each)


def of_snapshots(
    provider: str, snapshots: list[Snapshot], set_name: str | None
) -> Iterator[Backup]:
    """Yield snapshots as backups: those of a set, else all that are of any, and others too."""
    for each in snapshots:
        names = [tag.removeprefix(TAG) for tag in each.tags if tag.startswith(TAG)]
        name = names[0] if names else ""
        if set_name is None or name == set_name:
            yield Backup(provider, name, each.host, each.short_id, each.time, each.bytes, each)


def chosen(backups: list[Backup], identity: str, sought: str = "") -> Backup:
    """Return the backup that somebody has named.

    Args:
        identity: "latest", or the beginning of an id that only one has.
        sought: what all of them are of, for the message.

    Raises:
        CommandError: there is none, or there are several.
    """
    if not backups:
        raise CommandError(f"there is no backup{sought}; `backupgw backup list` shows them")
    if identity == "latest":
        return max(backups, key=lambda backup: backup.time)
    fitting = [
        backup
        for backup in backups
        if backup.id.lower().startswith(identity.lower())
        or (isinstance(backup.held, Snapshot) and backup.held.id.startswith(identity.lower()))
    ]
    if not fitting:
        hint = f" (a set is chosen by --set {identity})" * any(b.set == identity for b in backups)
        raise CommandError(
            f"there is no backup {identity!r}{hint}; `backupgw backup list` shows them"
        )
    if len(fitting) > 1:
        names = ", ".join(sorted(backup.id for backup in fitting)[:5])
        raise CommandError(f"{identity!r} is the beginning of several: {names}; write more of it")
    return fitting[0]
