"""Documents about folders."""

from __future__ import annotations

import socket
from datetime import datetime

from pydantic import Field

from backupgw.kvstore.ledger import Usage

from ..core import Core
from ..folders.records import Folder, Kind, Limits, Permission, Status
from .models import (
    Amount,
    FolderName,
    Lifetime,
    Model,
    Page,
    SubjectName,
    VolumeName,
    moment,
    moment_or_none,
)


class LimitsDocument(Model):
    """What may be held; null is without limit."""

    bytes: Amount | None = None
    files: Amount | None = None

    def limits(self) -> Limits:
        """Return it as a record."""
        return Limits(self.bytes, self.files)


class QuotaDocument(Model):
    """What is held, and what may be. `reserved` is what uploads under way may still add."""

    limit_bytes: int | None
    limit_files: int | None
    used_bytes: int
    used_files: int
    reserved_bytes: int
    reserved_files: int


class CreateFolder(Model):
    """A folder that is to be made."""

    name: FolderName
    group: SubjectName | None = Field(None, description="the group that it is to belong to")
    owner: SubjectName | None = Field(
        None, description="the user that it is to belong to; for administrators"
    )
    volume: VolumeName | None = Field(None, description="where; default the usual volume")
    limits: LimitsDocument | None = None
    group_permission: Permission = Field(
        Permission.READ_WRITE_DELETE, description="of the group's members"
    )
    mode: int | None = Field(None, ge=0, le=0o777, description="permission bits on disk")
    lifetime: Lifetime | None = Field(None, description="seconds until it is deleted by itself")


class ChangeFolder(Model):
    """What is to change; what is not mentioned stays as it is."""

    name: FolderName | None = None
    limits: LimitsDocument | None = None
    group_permission: Permission | None = None
    lifetime: Lifetime | None = None
    permanent: bool | None = Field(None, description="true: it no longer ends by itself")


class FolderDocument(Model):
    """A virtual folder."""

    id: str
    name: str
    type: Kind
    owner: str
    volume: str
    backend: str = Field(description="what kind of storage the volume is")
    host: str = Field(description="the gateway that told this")
    status: Status
    permission: Permission = Field(description="what you may do with it")
    group_permission: Permission
    limits: LimitsDocument
    quota: QuotaDocument | None = Field(None, description="null in lists")
    creator: str
    created: datetime
    changed: datetime
    deleted: datetime | None
    expires: datetime | None
    task: str | None = Field(description="what works on it")
    reason: str | None = Field(description="why its status is an error")


class FolderList(Model):
    """A page of folders. `next` is null on the last."""

    items: list[FolderDocument]
    next: str | None


class ListFolders(Page):
    """Which folders."""

    all: bool = Field(False, description="everybody's; for administrators")
    type: Kind | None = Field(None, description="together with owner")
    owner: SubjectName | None = None
    volume: VolumeName | None = None
    name: str | None = Field(None, max_length=64, description="part of the name")
    status: list[Status] = Field(default=[], description="only these")


_HOST = socket.gethostname()


def quota_document(usage: Usage) -> QuotaDocument:
    """Return an account."""
    return QuotaDocument(
        limit_bytes=usage.limit.hard_bytes,
        limit_files=usage.limit.hard_objects,
        used_bytes=max(0, usage.used.bytes),
        used_files=max(0, usage.used.objects),
        reserved_bytes=max(0, usage.reserved.bytes),
        reserved_files=max(0, usage.reserved.objects),
    )


def folder_document(
    core: Core, folder: Folder, permission: Permission, *, quota: bool = False
) -> FolderDocument:
    """Return what is told of a folder.

    Args:
        quota: ask the ledger what it holds.
    """
    opened = core.volumes.get(folder.volume)
    return FolderDocument(
        id=folder.id,
        name=folder.name,
        type=folder.holder.kind,
        owner=folder.holder.name,
        volume=folder.volume,
        backend="gone" if opened is None else opened.volume.type,
        host=_HOST,
        status=folder.status,
        permission=permission,
        group_permission=folder.group_permission,
        limits=LimitsDocument(bytes=folder.limits.bytes, files=folder.limits.files),
        quota=quota_document(core.accounts.usage(folder.scope)) if quota else None,
        creator=folder.creator,
        created=moment(folder.created),
        changed=moment(folder.changed),
        deleted=moment_or_none(folder.deleted),
        expires=moment_or_none(folder.expires),
        task=folder.job,
        reason=folder.reason,
    )
