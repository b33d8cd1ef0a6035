"""With whom folders are shared: told, changed, left."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ..core import Core
from ..folders.records import Holder, Kind, Permission, Share
from ..folders.sharing import Sharing
from .models import FolderParameters, Model, SubjectName, moment
from .operation import Call, NoModel, Operation


class ShareParameters(FolderParameters):
    """Which share."""

    kind: Kind
    subject: SubjectName


class ShareBody(Model):
    """By how much a folder is to be shared."""

    permission: Literal["ro", "rw", "rwd"]


class ShareDocument(Model):
    """A folder shared with a user or a group."""

    kind: Kind
    subject: str
    permission: Permission
    created: datetime
    creator: str


class ShareList(Model):
    """With whom a folder is shared."""

    items: list[ShareDocument]


def share_operations(core: Core) -> list[Operation]:
    """Return the operations on shares."""
    routes = _ShareRoutes(core)
    one = "/v1/folders/{folder}/shares/{kind}/{subject}"
    return [
        Operation(
            "GET",
            "/v1/folders/{folder}/shares",
            routes.list,
            "Tell with whom a folder is shared; who does not own it learns of itself only",
            parameters=FolderParameters,
            answer=ShareList,
            tag="shares",
        ),
        Operation(
            "PUT",
            one,
            routes.share,
            "Share a folder, or change by how much",
            parameters=ShareParameters,
            body=ShareBody,
            answer=ShareDocument,
            problems=(409,),
            tag="shares",
        ),
        Operation(
            "DELETE",
            one,
            routes.unshare,
            "End a share",
            parameters=ShareParameters,
            status=204,
            tag="shares",
        ),
        Operation(
            "POST",
            "/v1/folders/{folder}/leave",
            routes.leave,
            "Give up a folder that was shared with you",
            parameters=FolderParameters,
            status=204,
            problems=(409,),
            tag="shares",
        ),
    ]


class _ShareRoutes:
    def __init__(self, core: Core) -> None:
        self._sharing = Sharing(core)

    def list(self, call: Call[FolderParameters, NoModel]) -> ShareList:
        found = self._sharing.shares(call.who, call.parameters.folder)
        return ShareList(items=[_document(share) for share in found])

    def share(self, call: Call[ShareParameters, ShareBody]) -> ShareDocument:
        wanted = call.parameters
        return _document(
            self._sharing.share(
                call.who,
                wanted.folder,
                Holder(wanted.kind, wanted.subject),
                Permission(call.body.permission),
            )
        )

    def unshare(self, call: Call[ShareParameters, NoModel]) -> None:
        wanted = call.parameters
        self._sharing.unshare(call.who, wanted.folder, Holder(wanted.kind, wanted.subject))

    def leave(self, call: Call[FolderParameters, NoModel]) -> None:
        self._sharing.leave(call.who, call.parameters.folder)


def _document(share: Share) -> ShareDocument:
    return ShareDocument(
        kind=share.subject.kind,
        subject=share.subject.name,
        permission=share.permission,
        created=moment(share.created),
        creator=share.creator,
    )
