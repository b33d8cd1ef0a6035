"""Parameters and answers as Backend.AI has them. Parameters are JSON bodies, also of GET."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ..api.models import Amount, Model, VolumeName

QuotaScope = Annotated[
    str,
    Field(
        pattern=r"^(user|project):[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,126}[A-Za-z0-9_])?$",
        description="user:ID or project:ID",
    ),
]
FolderReference = Annotated[
    str,
    Field(
        pattern=r"^(user|project):[A-Za-z0-9](?:[A-Za-z0-9._@+-]{0,126}[A-Za-z0-9_])?"
        r"/[0-9a-f]{32}$",
        description="the quota scope, a slash, and the folder's id in hexadecimal digits",
    ),
]


class VolumeBody(Model):
    """Which volume."""

    volume: VolumeName


class QuotaOptions(Model):
    """What a quota scope may hold; null is without limit."""

    limit_bytes: Amount | None = None


class ScopeBody(VolumeBody):
    """Which quota scope."""

    qsid: QuotaScope


class ScopeOptionsBody(ScopeBody):
    """What a quota scope is to hold at most."""

    options: QuotaOptions | None = None


class FolderBody(VolumeBody):
    """Which folder."""

    vfid: FolderReference


class FolderOptions(Model):
    """What the scope of a new folder may hold, where it is new as well."""

    initial_max_size_for_quota_scope: Amount | None = None


class CreateFolderBody(FolderBody):
    """A folder that is to be made."""

    mode: int | None = Field(None, ge=0, le=0o777)
    options: FolderOptions | None = None


class CloneFolderBody(Model):
    """A folder that is to be made from another."""

    src_volume: VolumeName
    src_vfid: FolderReference
    dst_volume: VolumeName
    dst_vfid: FolderReference


class MountBody(FolderBody):
    """What is to be mounted."""

    subpath: str = Field("", max_length=4000)


class ManagerVolume(Model):
    """A volume as managers know it."""

    name: str
    backend: str
    path: str
    fsprefix: str
    capabilities: list[str]


class ManagerVolumes(Model):
    """All volumes."""

    volumes: list[ManagerVolume]


class HardwareInfo(Model):
    """How a volume's storage is."""

    status: str
    status_info: str | None
    metadata: dict[str, Any]


class ScopeUsage(Model):
    """What a quota scope holds and may hold; a limit of null is none."""

    used_bytes: int
    limit_bytes: int | None


class FolderUsageAnswer(Model):
    """What a folder holds."""

    file_count: int
    used_bytes: int


class UsedBytes(Model):
    """What a folder holds."""

    used_bytes: int


class FileSystemUsage(Model):
    """What a volume holds and can hold; null where the place does not tell."""

    capacity_bytes: int | None
    used_bytes: int | None


class TaskAnswer(Model):
    """The task that has been begun."""

    bgtask_id: str


class PathAnswer(Model):
    """Where a folder is mounted from."""

    path: str
