"""What tasks are told. `actor` is who asked, for the audit log."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FolderTask(_Arguments):
    """Something is done to a folder."""

    folder: str
    actor: str


class CloneTask(FolderTask):
    """`folder` is filled from `source`, which the actor could read when it was asked for."""

    source: str


class SnapshotTask(FolderTask):
    """Something is done with a snapshot of a folder."""

    snapshot: str


class TransferTask(FolderTask):
    """A folder gets another owner."""

    kind: str
    owner: str


class DeleteFilesTask(FolderTask):
    """Files in a folder are deleted; their paths were checked."""

    paths: list[str]
    recursive: bool = False


class VolumeTask(_Arguments):
    """Something is done to a volume."""

    volume: str
    actor: str


class OrphansTask(VolumeTask):
    """Folders that nobody knows are looked for, and removed where that is wanted."""

    remove: bool = False


class CleanupTask(_Arguments):
    """What has had its time goes."""

    actor: str = "gateway"
