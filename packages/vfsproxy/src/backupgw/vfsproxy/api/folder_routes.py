"""Folders: made, listed, looked at, changed, deleted and restored."""

from __future__ import annotations

from ..core import Core
from ..folders.lifecycle import Lifecycle, Wanted
from ..folders.records import Holder, Kind, Permission
from ..problems import Problem
from .folder_documents import (
    ChangeFolder,
    CreateFolder,
    FolderDocument,
    FolderList,
    ListFolders,
    folder_document,
)
from .models import FolderParameters
from .operation import Answer, Call, NoModel, Operation


def folder_operations(core: Core) -> list[Operation]:
    """Return the operations on folders themselves."""
    routes = _FolderRoutes(core)
    one = "/v1/folders/{folder}"
    return [
        Operation(
            "POST",
            "/v1/folders",
            routes.create,
            "Make a folder",
            body=CreateFolder,
            answer=FolderDocument,
            status=201,
            response_headers={"Location": "the folder"},
            problems=(404, 409, 507),
        ),
        Operation(
            "GET",
            "/v1/folders",
            routes.list,
            "List the folders that you may see",
            parameters=ListFolders,
            answer=FolderList,
        ),
        Operation(
            "GET",
            one,
            routes.inspect,
            "Tell about a folder, and what it holds",
            parameters=FolderParameters,
            answer=FolderDocument,
        ),
        Operation(
            "PATCH",
            one,
            routes.change,
            "Rename a folder, limit it, say what its group may do, or when it ends",
            parameters=FolderParameters,
            body=ChangeFolder,
            answer=FolderDocument,
            problems=(409,),
        ),
        Operation(
            "DELETE",
            one,
            routes.delete,
            "Delete a folder; it can be restored for a while",
            parameters=FolderParameters,
            answer=FolderDocument,
            problems=(409,),
        ),
        Operation(
            "POST",
            f"{one}/restore",
            routes.restore,
            "Bring a deleted folder back",
            parameters=FolderParameters,
            answer=FolderDocument,
            problems=(409,),
        ),
    ]


class _FolderRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._lifecycle = Lifecycle(core)

    def create(self, call: Call[NoModel, CreateFolder]) -> Answer:
        body = call.body
        if body.group is not None and body.owner is not None:
            raise Problem(400, "invalid", "a folder belongs to a user or a group, not to both")
        holder = None
        if body.group is not None:
            holder = Holder(Kind.GROUP, body.group)
        elif body.owner is not None:
            holder = Holder(Kind.USER, body.owner)
        folder = self._lifecycle.create(
            call.who,
            Wanted(
                name=body.name,
                holder=holder,
                volume=body.volume,
                limits=None if body.limits is None else body.limits.limits(),
                group_permission=_for_others(body.group_permission),
                mode=body.mode,
                lifetime=body.lifetime,
            ),
        )
        document = folder_document(self._core, folder, Permission.OWNER, quota=True)
        location = (b"location", f"/v1/folders/{folder.id}".encode())
        return Answer(document, headers=[location])

    def list(self, call: Call[ListFolders, NoModel]) -> FolderList:
        wanted = call.parameters
        holder = None
        if (wanted.type is None) != (wanted.owner is None):
            raise Problem(400, "invalid", "type and owner belong together")
        if wanted.type is not None and wanted.owner is not None:
            holder = Holder(wanted.type, wanted.owner)
        found = self._lifecycle.listed(
            call.who,
            everybody=wanted.all,
            after=wanted.after,
            limit=wanted.limit,
            holder=holder,
            volume=wanted.volume,
            name=wanted.name,
            statuses=wanted.status,
        )
        items = [folder_document(self._core, folder, permission) for folder, permission in found]
        return FolderList(items=items, next=items[-1].id if len(items) == wanted.limit else None)

    def inspect(self, call: Call[FolderParameters, NoModel]) -> FolderDocument:
        folder, permission = self._lifecycle.inspect(call.who, call.parameters.folder)
        return folder_document(self._core, folder, permission, quota=True)

    def change(self, call: Call[FolderParameters, ChangeFolder]) -> FolderDocument:
        folder_id, body = call.parameters.folder, call.body
        if body.lifetime is not None and body.permanent:
            raise Problem(400, "invalid", "either lifetime or permanent")
        if body.name is not None:
            self._lifecycle.rename(call.who, folder_id, body.name)
        if body.limits is not None:
            self._lifecycle.set_limits(call.who, folder_id, body.limits.limits())
        if body.group_permission is not None:
            self._lifecycle.set_group_permission(
                call.who, folder_id, _for_others(body.group_permission)
            )
        if body.lifetime is not None or body.permanent:
            self._lifecycle.set_lifetime(call.who, folder_id, body.lifetime)
        return self.inspect(Call(call.who, call.parameters, NoModel(), call.exchange))

    def delete(self, call: Call[FolderParameters, NoModel]) -> FolderDocument:
        folder = self._lifecycle.delete(call.who, call.parameters.folder)
        return folder_document(self._core, folder, Permission.OWNER)

    def restore(self, call: Call[FolderParameters, NoModel]) -> FolderDocument:
        folder = self._lifecycle.restore(call.who, call.parameters.folder)
        return folder_document(self._core, folder, Permission.OWNER)


def _for_others(permission: Permission) -> Permission:
    if permission is Permission.OWNER:
        raise Problem(400, "invalid", "others can have ro, rw or rwd; an owner is made by transfer")
    return permission
