"""The sections [vfs] and [vfs_manager] of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from backupgw.runtime.cache import CacheSettings
from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings_times import Cron, Zone

from .names import VOLUME_NAME


class LimitSettings(BaseModel):
    """What somebody may hold who has no limit of their own; nothing is without limit.

    Attributes:
        bytes: text such as "10 GiB", or a number.
        files: how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: ByteSize | None = Field(None, ge=0)
    files: int | None = Field(None, ge=0)


class VolumeSettings(BaseModel):
    """One `[vfs.volumes.NAME]`.

    Attributes:
        type: how it is driven: place (one of `[places.NAME]`), fs (a folder of this machine), or
            what an installed package has registered.
        place: type place: the place's name, default the volume's own.
        path: type fs: the folder.
        nfs: `SERVER:/EXPORT` under which agents reach this volume's folder.
        fuse: the command by which agents mount it, with `{folder}` for the folder's path.
        advisory_quota: grant read-write mounts although nothing but this gateway keeps the limits.
        options: of other types, as they document them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = "place"
    place: str | None = None
    path: Path | None = None
    nfs: str | None = None
    fuse: str | None = None
    advisory_quota: bool = False
    options: dict[str, Any] = {}

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.type == "fs" and self.path is None:
            raise ValueError('type "fs" needs path, the folder of the volume')
        if self.type == "place" and self.path is not None:
            raise ValueError('path belongs to type "fs"; a place is named by place')
        return self


class ScheduleSettings(BaseModel):
    """When the gateway looks after its folders, as cron writes it; "" for never.

    Attributes:
        scan: count each volume and correct the accounts.
        cleanup: purge what was deleted long ago, expired folders and snapshots, stale uploads.
        orphans: look for folders in the volumes that nobody knows.
        zone: the time zone they are in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scan: Cron = "17 3 * * *"
    cleanup: Cron = "*/10 * * * *"
    orphans: Cron = "47 4 * * 0"
    zone: Zone = "UTC"


class ManagerSourceSettings(BaseModel):
    """`[vfs.manager]`: a Manager that says who is who.

    Attributes:
        url: of the Manager, `https://manager.example`.
        token: shown to it in `X-BackendAI-Storage-Auth-Token`.
        ttl: seconds that an answer is believed.
        stale: seconds that it is believed while the Manager does not answer.
        timeout: seconds that it may take.
        quotas: whether limits are taken over from it, and usage told to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://[^/@?#]+(/[^?#@]*)?$")
    token: Secret | None = None
    ttl: float = Field(30.0, gt=0, le=3600)
    stale: float = Field(300.0, ge=0, le=86_400)
    timeout: float = Field(5.0, gt=0, le=60)
    quotas: bool = True


class VfsSettings(HttpOptions):
    """Virtual folders: the API for clients, and what both APIs share.

    Attributes:
        volumes: where folders can lie; none: one called "default", on the place of that name.
        default_volume: where a folder is made when nobody says where; default the only one.
        users: limits of users that have none of their own.
        groups: the same for groups.
        folders: the same for folders.
        most_folders: that a user or a group may have; 0: any number.
        keep_deleted: seconds that a deleted folder can be restored before it is purged.
        upload_lifetime: seconds that an unfinished upload is kept.
        max_upload: text such as "100 GiB": of one file, at most; nothing is without limit.
        transfer_lifetime: seconds that a link for a single transfer is good for.
        cors: origins of web pages that may use the API, "*" for any.
        ledger: file of the accounts, on a local disk; default in the state folder. Gateways that
            share a PostgreSQL share the accounts in it.
        threads: blocking calls at a time in each worker.
        operation_log: log each upload, download and change; what fails is always logged.
        schedule: when the gateway looks after its folders.
        cache: what is kept for speed's sake.
        manager: a Manager as the source of users and permissions.
    """

    listen: list[str] = Field(default=["127.0.0.1:6021"])
    volumes: dict[str, VolumeSettings] = Field(default={})
    default_volume: str | None = None
    users: LimitSettings = Field(default_factory=lambda: LimitSettings.model_validate({}))
    groups: LimitSettings = Field(default_factory=lambda: LimitSettings.model_validate({}))
    folders: LimitSettings = Field(default_factory=lambda: LimitSettings.model_validate({}))
    most_folders: int = Field(1000, ge=0)
    keep_deleted: float = Field(7 * 86_400.0, ge=0)
    upload_lifetime: float = Field(86_400.0, ge=60, le=14 * 86_400.0)
    max_upload: ByteSize | None = Field(None, gt=0)
    transfer_lifetime: int = Field(3600, ge=1, le=86_400)
    cors: list[str] = Field(default=["*"])
    ledger: Path | None = None
    threads: int = Field(24, ge=2, le=512)
    operation_log: bool = False
    schedule: ScheduleSettings = ScheduleSettings()
    cache: CacheSettings = Field(default_factory=lambda: CacheSettings.model_validate({}))
    manager: ManagerSourceSettings | None = None

    @field_validator("volumes")
    @classmethod
    def _names(cls, volumes: dict[str, VolumeSettings]) -> dict[str, VolumeSettings]:
        for name in volumes:
            if not VOLUME_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a volume; use a-z, 0-9, - and _")
        return volumes

    @model_validator(mode="after")
    def _default(self) -> Self:
        if self.default_volume is not None and self.default_volume not in self.all_volumes:
            raise ValueError(f"default_volume: there is no volume {self.default_volume!r}")
        return self

    @property
    def all_volumes(self) -> dict[str, VolumeSettings]:
        """The volumes by name, the default one where none is named."""
        return self.volumes or {"default": VolumeSettings()}

    @property
    def usual_volume(self) -> str | None:
        """Where a folder is made when nobody says where; None where that must be said."""
        if self.default_volume is not None:
            return self.default_volume
        names = list(self.all_volumes)
        return names[0] if len(names) == 1 else None


class ManagerSettings(HttpOptions):
    """The API for cluster managers.

    Attributes:
        token: what a manager shows in `X-BackendAI-Storage-Auth-Token`.
    """

    listen: list[str] = Field(default=["127.0.0.1:6022"])
    token: Secret | None = None
