"""What a volume is: a place of the kernel, and what its storage does natively beside that.

A package adds a type by an entry point of the group `backupgw.volumes`: its name is what
`type = "…"` says in `[vfs.volumes.NAME]`, its value a function

    def from_settings(settings: Settings, name: str, volume: VolumeSettings) -> Volume

that opens nothing. What a storage does natively it offers by the protocols below; whatever it does
not offer, the gateway does itself, or says that it cannot be had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from backupgw.kvstore.backends.base import Backend


@dataclass(frozen=True, slots=True)
class FolderUsage:
    """What a storage says that a folder uses; None where it does not tell."""

    bytes: int | None = None
    files: int | None = None


class NativeQuota(Protocol):
    """Limits that the storage itself keeps, also for what is written around the gateway.

    Paths are those of folders in the volume. Raises BackendError.
    """

    def set_limit(self, path: str, bytes: int | None, files: int | None) -> None:  # noqa: A002
        """Set a folder's limits; None is without."""

    def usage(self, path: str) -> FolderUsage:
        """Return what a folder uses, quickly."""


class NativeSnapshots(Protocol):
    """Snapshots that the storage makes. Raises BackendError."""

    def create(self, path: str, snapshot: str) -> None:
        """Make one of a folder; one that is there already is fine."""

    def root(self, path: str, snapshot: str) -> str:
        """Return where in the volume its files can be read."""

    def delete(self, path: str, snapshot: str) -> None:
        """Remove one; one that is gone is fine."""


@dataclass(frozen=True, slots=True)
class MountOffer:
    """A way for an agent to mount a folder.

    Attributes:
        method: direct, nfs or fuse.
        source: a path, `SERVER:/EXPORT/path`, or a command.
    """

    method: str
    source: str


@dataclass(frozen=True)
class Volume:
    """Where folders can lie.

    Attributes:
        name: of the volume in the settings.
        type: such as "vfs" or "cephfs": what a manager is told as its backend.
        backend: the place, not open.
        local_root: the folder of this machine that the place is, None where it is none.
        quota, snapshots: what the storage does natively.
        hardware: returns what a manager asks for about the machine: status and figures.
        nfs, fuse, advisory_quota: see `VolumeSettings`.
    """

    name: str
    type: str
    backend: Backend
    local_root: Path | None = None
    quota: NativeQuota | None = None
    snapshots: NativeSnapshots | None = None
    hardware: Callable[[], Mapping[str, object]] | None = None
    nfs: str | None = None
    fuse: str | None = None
    advisory_quota: bool = False
    extra_capabilities: tuple[str, ...] = field(default=())

    @property
    def capabilities(self) -> list[str]:
        """What a manager is told that it can do."""
        found = ["vfolder", *self.extra_capabilities]
        if self.quota is not None:
            found.append("quota")
        if self.local_root is not None:
            found.append("fs-usage")
        if self.snapshots is not None:
            found.append("snapshot")
        if self.backend.capabilities.copy:
            found.append("fast-copy")
        return found

    def mounts(self, path: str) -> list[MountOffer]:
        """Return the ways to mount a folder, best first."""
        offers = []
        if self.local_root is not None:
            offers.append(MountOffer("direct", str(self.local_root / path)))
        if self.nfs is not None:
            offers.append(MountOffer("nfs", f"{self.nfs.rstrip('/')}/{path}"))
        if self.fuse is not None:
            offers.append(MountOffer("fuse", self.fuse.replace("{folder}", path)))
        return offers
