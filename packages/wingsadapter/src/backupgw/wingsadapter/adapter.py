"""What a way of making backups has to offer: the adapters `restic`, `wings` and `s3`.

Everything here blocks, and runs on a thread of a job. What is around it is not an adapter's affair:
queues, the Panel, events, hooks, and of a restore the staging folder, the swap, and ownership.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backupgw.runtime.restic import StopSignal


class AdapterError(Exception):
    """A backup or restore failed; `str()` is one line without secrets, for the node's operator.

    Attributes:
        retryable: whether the same may succeed later.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class BackupUnknown(AdapterError):
    """There is no such backup, or it is another server's and may not be used."""


class Stopped(AdapterError):
    """`control.stop` was set; nothing half-made is left behind."""


@dataclass(frozen=True)
class Progress:
    """How far a backup or a restore is; totals are None where nobody knows them yet.

    Attributes:
        fraction: 0 to 1.
        seconds_left: a guess.
    """

    fraction: float | None = None
    bytes: int = 0
    total_bytes: int | None = None
    files: int = 0
    total_files: int | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Control:
    """How a running adapter is told to stop, and tells how far it is.

    Attributes:
        stop: looked at (`stop.is_set`) or waited for (poll(2) on `stop.fileno()`) at least once a
            second; then raise `Stopped`.
        progress: may be called as often as wanted.
    """

    stop: StopSignal
    progress: Callable[[Progress], None] = field(default=lambda _: None)

    def check(self) -> None:
        """Raise Stopped where it is to stop."""
        if self.stop.is_set:
            raise Stopped("it was stopped")


@dataclass(frozen=True)
class BackupRequest:
    """A backup that is to be made.

    Attributes:
        server, backup: canonical UUIDs, checked.
        root: the server's folder, absolute, no link.
        ignore: the lines that the Panel sent; "": what the server's own ignore file says counts.
    """

    server: str
    backup: str
    root: str
    ignore: str = ""


@dataclass(frozen=True)
class Part:
    """A part of an archive that was uploaded."""

    etag: str
    part_number: int


@dataclass(frozen=True)
class BackupOutcome:
    """A backup that was made, as the Panel is told of it.

    Attributes:
        checksum: hexadecimal; a snapshot's id for restic.
        checksum_type: "sha1", or "restic".
        size: bytes.
        parts: of an upload to S3.
        added: bytes that the store grew by; None where that is the size.
        warnings: what the backup lacks, a line each.
    """

    checksum: str
    checksum_type: str
    size: int
    parts: Sequence[Part] | None = None
    added: int | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class RestoreRequest:
    """A backup that is to be restored.

    Attributes:
        server: whom it is restored to.
        backup: the backup's UUID.
        download_url: where the Panel says the archive is (s3).
        paths: of files and folders below the server's root, "a/b"; none: all of it.
        cross_server: whether it may be another server's backup.
    """

    server: str
    backup: str
    download_url: str | None = None
    paths: Sequence[str] = ()
    cross_server: bool = True


@dataclass(frozen=True)
class Found:
    """A backup that can be restored.

    Attributes:
        size: bytes that its files take; None where that is not known beforehand.
        server: whose it is; None where that is not known.
    """

    size: int | None = None
    server: str | None = None


class Adapter(Protocol):
    """One way of making backups.

    All methods raise AdapterError, or Stopped, and nothing else of theirs.
    """

    name: str
    """What the Panel calls it."""

    def create(self, request: BackupRequest, control: Control) -> BackupOutcome:
        """Make a backup. Called again for the same backup after a crash: what is left of the first
        call is found and used, or removed."""

    def find(self, request: RestoreRequest, control: Control) -> Found:
        """Make sure, before anything is touched, that a backup is there and can be read.

        Raises:
            BackupUnknown: there is none, or it may not be restored to this server.
        """

    def unpack(self, request: RestoreRequest, target: str, control: Control) -> None:
        """Put the backup's files below an empty folder, as they were below the server's root.

        Owners do not matter, they are set afterwards; modes, times and links do. Nothing is written
        outside `target`, whatever the backup holds.

        Args:
            target: absolute; on the file system of the server's root.
        """

    def delete(self, server: str, backup: str) -> bool:
        """Remove a backup, or note that it is to be removed; return whether there was one."""

    def close(self) -> None:
        """Let go of what is held. Nothing else is called afterwards."""
