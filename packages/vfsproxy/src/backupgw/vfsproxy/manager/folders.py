"""Folders, whole, for managers of Backend.AI."""

from __future__ import annotations

from ..api.operation import Call, NoModel, Operation
from ..core import Core
from ..folders import people
from ..folders.administration import Administration
from ..folders.lifecycle import Lifecycle, Wanted
from ..folders.mounts import mount_of
from ..folders.records import Limits, path_of
from ..tasks.cloning import submit_clone
from ..tasks.ending import submit_purge
from .documents import (
    CloneFolderBody,
    CreateFolderBody,
    FolderBody,
    FolderUsageAnswer,
    MountBody,
    PathAnswer,
    TaskAnswer,
    UsedBytes,
)
from .references import TAG, find_folder, holder_of, make_known


def manager_folder_operations(core: Core) -> list[Operation]:
    """Return Backend.AI's operations on folders."""
    return [*_folders(core), *_usage(core)]


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
        make_known(self._core, call.who, holder)
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
        make_known(self._core, call.who, holder)
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
