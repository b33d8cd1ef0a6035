"""What this package tells as events."""

from __future__ import annotations

from dataclasses import dataclass

from backupgw.runtime.events import Event, Severity


@dataclass(frozen=True, kw_only=True)
class FolderCreated(Event, type="vfs.folder.created"):
    """A virtual folder was made. `owner` is `user:NAME` or `group:NAME`."""

    vfolder_id: str
    name: str
    owner: str
    volume: str
    user: str


@dataclass(frozen=True, kw_only=True)
class FolderDeleted(Event, type="vfs.folder.deleted", severity=Severity.WARNING):
    """A virtual folder was deleted; it can be restored until it is purged."""

    vfolder_id: str
    name: str
    owner: str
    user: str


@dataclass(frozen=True, kw_only=True)
class FolderPurged(Event, type="vfs.folder.purged", severity=Severity.WARNING):
    """A virtual folder is gone for good, with so many files."""

    vfolder_id: str
    name: str
    owner: str
    files: int


@dataclass(frozen=True, kw_only=True)
class DriftCorrected(Event, type="vfs.quota.corrected", severity=Severity.WARNING):
    """A scan has found an account that was wrong."""

    scope: str
    recorded_bytes: int
    recorded_files: int
    found_bytes: int
    found_files: int


@dataclass(frozen=True, kw_only=True)
class OrphanFound(Event, type="vfs.orphan.found", severity=Severity.WARNING):
    """A folder lies in a volume that no virtual folder is known for."""

    volume: str
    path: str
    files: int
    bytes: int
