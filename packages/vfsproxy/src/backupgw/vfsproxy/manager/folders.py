"""Volumes, quota scopes and folders for managers of Backend.AI.

A quota scope is a user or, as `project:`, a group. A folder's id is the second part of its `vfid`;
its content lies where Backend.AI's own proxy would have it.
"""

from __future__ import annotations

import os
from typing import Any

from backupgw.kvstore.backends.errors import BackendError

from ..api.operation import Call, NoModel, Operation
from ..core import Core
from ..folders import catalogue, people
from ..folders.access import FolderAccess
from ..folders.administration import Administration
from ..folders.lifecycle import Lifecycle, Wanted
from ..folders.mounts import mount_of
from ..folders.records import Folder, Holder, Kind, Limits, Permission, path_of
from ..identity import Identity
from ..problems import Problem, not_found
from ..tasks.cloning import submit_clone
from ..tasks.ending import submit_purge
from .documents import (
    CloneFolderBody,
    CreateFolderBody,
    FileSystemUsage,
    FolderBody,
    FolderUsageAnswer,
    HardwareInfo,
    ManagerVolume,
    ManagerVolumes,
    MountBody,
    PathAnswer,
    ScopeBody,
    ScopeOptionsBody,
    ScopeUsage,
    TaskAnswer,
    UsedBytes,
    VolumeBody,
)

TAG = "manager"


def holder_of(scope: str) -> Holder:
    """Return whose a quota scope is."""
    kind, _, name = scope.partition(":")
    return Holder(Kind.USER if kind == "user" else Kind.GROUP, name)


def reference_of(folder: Folder) -> str:
    """Return a folder's `vfid`."""
    kind = "user" if folder.holder.kind is Kind.USER else "project"
    return f"{kind}:{folder.holder.name}/{folder.id}"


def find_folder(core: Core, volume: str, reference: str) -> Folder:
    """Return a folder by its `vfid`. Raises Problem 404."""
    scope, _, folder_id = reference.rpartition("/")
    with core.database.read() as connection:
        folder = catalogue.find(connection, folder_id)
    if folder is None or folder.volume != volume or folder.holder != holder_of(scope):
        raise not_found("folder")
    return folder


def resolve_folder(
    core: Core, who: Identity, volume: str, reference: str, needed: Permission
) -> FolderAccess:
    """Return the content of a folder by its `vfid`. Raises Problem, as `Folders.resolve`."""
    scope, _, folder_id = reference.rpartition("/")
    access = core.folders.resolve(who, folder_id, needed)
    if access.folder.volume != volume or access.folder.holder != holder_of(scope):
        raise not_found("folder")
    return access


def manager_folder_operations(core: Core) -> list[Operation]:
    """Return Backend.AI's operations on volumes, quota scopes and folders."""
    return [*_volumes(core), *_scopes(core), *_folders(core), *_usage(core)]


def _volumes(core: Core) -> list[Operation]:
    routes = _VolumeRoutes(core)
    return [
        Operation(
            "GET", "/volumes", routes.volumes, "List volumes", answer=ManagerVolumes, tag=TAG
        ),
        Operation(
            "GET",
            "/volume/hwinfo",
            routes.hardware,
            "Tell how a volume's storage is",
            body=VolumeBody,
            answer=HardwareInfo,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "GET",
            "/volume/performance-metric",
            routes.performance,
            "Tell how busy a volume's storage is; 501 where it does not say",
            body=VolumeBody,
            problems=(404, 501),
            tag=TAG,
        ),
        Operation(
            "GET",
            "/folder/fs-usage",
            routes.fs_usage,
            "Tell what a volume holds and can hold",
            body=VolumeBody,
            answer=FileSystemUsage,
            problems=(404,),
            tag=TAG,
        ),
    ]


def _scopes(core: Core) -> list[Operation]:
    routes = _ScopeRoutes(core)
    return [
        Operation(
            "POST",
            "/quota-scope",
            routes.set_limit,
            "Make a quota scope, with a limit or without",
            body=ScopeOptionsBody,
            status=204,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "GET",
            "/quota-scope",
            routes.usage,
            "Tell what a quota scope holds",
            body=ScopeBody,
            answer=ScopeUsage,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "PATCH",
            "/quota-scope",
            routes.set_limit,
            "Limit a quota scope",
            body=ScopeOptionsBody,
            status=204,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "DELETE",
            "/quota-scope/quota",
            routes.unset_limit,
            "Let a quota scope hold whatever fits",
            body=ScopeBody,
            status=204,
            problems=(404,),
            tag=TAG,
        ),
    ]


def _folders(core: Core) -> list[Operation]:
    routes = _FolderRoutes(core)
    return [
        Operation(
            "POST",
            "/folder/create",
            routes.create,
            "Make a folder",
            body=CreateFolderBody,
            status=204,
            problems=(404, 409),
            tag=TAG,
        ),
        Operation(
            "POST",
            "/folder/delete",
            routes.delete,
            "Remove a folder for good",
            body=FolderBody,
            answer=TaskAnswer,
            status=202,
            problems=(404, 409),
            tag=TAG,
        ),
        Operation(
            "POST",
            "/folder/clone",
            routes.clone,
            "Make a folder from another",
            body=CloneFolderBody,
            answer=TaskAnswer,
            problems=(404, 409),
            tag=TAG,
        ),
        Operation(
            "GET",
            "/folder/mount",
            routes.mount,
            "Tell where a folder is mounted from",
            body=MountBody,
            answer=PathAnswer,
            problems=(404, 409),
            tag=TAG,
        ),
    ]


def _usage(core: Core) -> list[Operation]:
    routes = _UsageRoutes(core)
    return [
        Operation(
            "GET",
            "/folder/usage",
            routes.usage,
            "Tell what a folder holds",
            body=FolderBody,
            answer=FolderUsageAnswer,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "GET",
            "/folder/used-bytes",
            routes.used_bytes,
            "Tell how many bytes a folder holds",
            body=FolderBody,
            answer=UsedBytes,
            problems=(404,),
            tag=TAG,
        ),
    ]


class _VolumeRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core

    def volumes(self, _call: Call[NoModel, NoModel]) -> ManagerVolumes:
        found = []
        for name, opened in self._core.volumes.items():
            volume = opened.volume
            path = "" if volume.local_root is None else str(volume.local_root)
            found.append(
                ManagerVolume(
                    name=name,
                    backend=volume.type,
                    path=path,
                    fsprefix=".",
                    capabilities=volume.capabilities,
                )
            )
        return ManagerVolumes(volumes=found)

    def hardware(self, call: Call[NoModel, VolumeBody]) -> HardwareInfo:
        volume = self._opened(call.body.volume).volume
        try:
            told = {} if volume.hardware is None else dict(volume.hardware())
            volume.backend.info("")
        except BackendError:
            return HardwareInfo(
                status="unavailable", status_info="the storage does not answer", metadata={}
            )
        return HardwareInfo(status="healthy", status_info=None, metadata=told)

    def performance(self, call: Call[NoModel, VolumeBody]) -> None:
        self._opened(call.body.volume)
        raise Problem(501, "unsupported", "the volume's storage does not say how busy it is")

    def fs_usage(self, call: Call[NoModel, VolumeBody]) -> FileSystemUsage:
        volume = self._opened(call.body.volume).volume
        if volume.local_root is not None:
            held = os.statvfs(volume.local_root)
            capacity = held.f_blocks * held.f_frsize
            return FileSystemUsage(
                capacity_bytes=capacity, used_bytes=capacity - held.f_bfree * held.f_frsize
            )
        quota = volume.backend.quota()
        return FileSystemUsage(
            capacity_bytes=None if quota.limit < 0 else quota.limit,
            used_bytes=None if quota.usage < 0 else quota.usage,
        )

    def _opened(self, name: str) -> Any:
        opened = self._core.volumes.get(name)
        if opened is None:
            raise not_found("volume")
        return opened


class _ScopeRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._administration = Administration(core)

    def set_limit(self, call: Call[NoModel, ScopeOptionsBody]) -> None:
        holder = known_scope(self._core, call.who, call.body)
        options = call.body.options
        if options is None and call.exchange.method == "POST":
            return
        limit = None if options is None else options.limit_bytes
        self._administration.set_limits(call.who, holder, Limits(bytes=limit))

    def unset_limit(self, call: Call[NoModel, ScopeBody]) -> None:
        holder = known_scope(self._core, call.who, call.body)
        self._administration.set_limits(call.who, holder, Limits())

    def usage(self, call: Call[NoModel, ScopeBody]) -> ScopeUsage:
        _known_volume(self._core, call.body.volume)
        account = self._administration.account(call.who, holder_of(call.body.qsid))
        return ScopeUsage(
            used_bytes=max(0, account.usage.used.bytes),
            limit_bytes=account.usage.limit.hard_bytes,
        )


class _FolderRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._lifecycle = Lifecycle(core)

    def create(self, call: Call[NoModel, CreateFolderBody]) -> None:
        body = call.body
        options = body.options
        initial = None if options is None else options.initial_max_size_for_quota_scope
        holder = holder_of(body.vfid.rpartition("/")[0])
        with self._core.database.read() as connection:
            new = people.limits_of(connection, holder) is None
        _make_known(self._core, call.who, holder)
        if initial is not None and new:
            Administration(self._core).set_limits(call.who, holder, Limits(bytes=initial))
        self._lifecycle.create(call.who, self._wanted(body.volume, body.vfid, body.mode))

    def _wanted(self, volume: str, reference: str, mode: int | None = None) -> Wanted:
        scope, _, folder_id = reference.rpartition("/")
        return Wanted(
            name=folder_id,
            holder=holder_of(scope),
            volume=volume,
            mode=mode,
            id=folder_id,
            path=path_of(folder_id, scope),
        )

    def delete(self, call: Call[NoModel, FolderBody]) -> TaskAnswer:
        folder = find_folder(self._core, call.body.volume, call.body.vfid)
        self._lifecycle.delete(call.who, folder.id)
        return TaskAnswer(bgtask_id=submit_purge(self._core, call.who, folder.id).id)

    def clone(self, call: Call[NoModel, CloneFolderBody]) -> TaskAnswer:
        body = call.body
        source = find_folder(self._core, body.src_volume, body.src_vfid)
        holder = holder_of(body.dst_vfid.rpartition("/")[0])
        _make_known(self._core, call.who, holder)
        wanted = self._wanted(body.dst_volume, body.dst_vfid)
        _, job = submit_clone(self._core, call.who, source.id, wanted)
        return TaskAnswer(bgtask_id=job.id)

    def mount(self, call: Call[NoModel, MountBody]) -> PathAnswer:
        folder = find_folder(self._core, call.body.volume, call.body.vfid)
        # The manager says to its agents who may write; the path alone grants nothing.
        found = mount_of(self._core, call.who, folder.id, "ro", call.body.subpath)
        direct = [offer.source for offer in found.offers if offer.method == "direct"]
        return PathAnswer(path=(direct or [found.offers[0].source])[0])


class _UsageRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core

    def usage(self, call: Call[NoModel, FolderBody]) -> FolderUsageAnswer:
        folder = find_folder(self._core, call.body.volume, call.body.vfid)
        used = self._core.accounts.usage(folder.scope).used
        return FolderUsageAnswer(file_count=max(0, used.objects), used_bytes=max(0, used.bytes))

    def used_bytes(self, call: Call[NoModel, FolderBody]) -> UsedBytes:
        folder = find_folder(self._core, call.body.volume, call.body.vfid)
        return UsedBytes(used_bytes=max(0, self._core.accounts.usage(folder.scope).used.bytes))


def known_scope(core: Core, who: Identity, body: ScopeBody) -> Holder:
    """Return whose a quota scope is, made known where it is new. Raises Problem 404."""
    _known_volume(core, body.volume)
    holder = holder_of(body.qsid)
    _make_known(core, who, holder)
    return holder


def _known_volume(core: Core, volume: str) -> None:
    if volume not in core.volumes:
        raise not_found("volume")


def _make_known(core: Core, who: Identity, holder: Holder) -> None:
    if holder.kind is Kind.GROUP:
        Administration(core).make_group(who, holder.name)
    else:
        core.database.run(
            lambda connection: people.ensure_user(connection, holder.name), idempotent=True
        )
