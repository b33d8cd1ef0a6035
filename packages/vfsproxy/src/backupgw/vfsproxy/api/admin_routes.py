"""Users, groups, quotas, volumes and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ..audit import Entry
from ..core import Core
from ..folders.administration import Account, Administration
from ..folders.people import Group, User
from ..folders.records import Holder, Kind, Limits
from .folder_documents import LimitsDocument, QuotaDocument, quota_document
from .models import FolderId, Model, Page, SubjectName, moment
from .operation import Answer, Call, NoModel, Operation


class UserParameters(Model):
    """Which user."""

    user: SubjectName


class GroupParameters(Model):
    """Which group."""

    group: SubjectName


class MemberParameters(GroupParameters):
    """Which member of which group."""

    user: SubjectName


class HolderParameters(Model):
    """Which user or group."""

    kind: Kind
    name: SubjectName


class UserBody(Model):
    """What is to be said of a user."""

    admin: bool | None = Field(None, description="may do everything")
    disabled: bool | None = Field(None, description="may do nothing")


class UserDocument(Model):
    """A user."""

    name: str
    admin: bool
    disabled: bool
    groups: dict[str, bool] | None = Field(
        None, description="each with whether as its administrator; null in lists"
    )


class UserList(Model):
    """A page of users."""

    items: list[UserDocument]
    next: str | None


class MemberBody(Model):
    """What kind of member."""

    admin: bool = Field(False, description="an administrator of the group")


class GroupDocument(Model):
    """A group."""

    name: str
    created: datetime
    members: dict[str, bool] | None = Field(
        None, description="each with whether as its administrator; null in lists"
    )


class GroupList(Model):
    """A page of groups."""

    items: list[GroupDocument]
    next: str | None


class AccountDocument(QuotaDocument):
    """What a user or a group holds, and may hold."""

    kind: Kind
    name: str
    own: bool = Field(description="the limits are their own, not the settings'")


class ListAudit(Model):
    """Which entries."""

    after: int = Field(0, ge=0, le=2**62, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=1000)
    folder: FolderId | None = None
    actor: SubjectName | None = None
    action: str | None = Field(None, max_length=64, examples=["folder.share"])
    newest_first: bool = False


class AuditEntry(Model):
    """A change: who did what, by what right, to what."""

    number: int
    time: datetime
    actor: str
    via: str
    action: str
    folder: str | None
    subject: str | None
    details: dict[str, Any]


class AuditList(Model):
    """A page of the audit log."""

    items: list[AuditEntry]
    next: int | None


class MountWays(Model):
    """How agents can mount folders of a volume."""

    direct: bool
    nfs: bool
    fuse: bool


class VolumeDocument(Model):
    """A volume."""

    name: str
    backend: str
    capabilities: list[str]
    usual: bool = Field(description="where a folder is made when nobody says where")
    mounts: MountWays
    advisory_quota: bool = Field(description="limits are not kept for what mounts write")


class VolumeList(Model):
    """All volumes."""

    items: list[VolumeDocument]


def admin_operations(core: Core) -> list[Operation]:
    """Return the operations on users, groups, quotas, volumes and the audit log."""
    return [*_users(core), *_groups(core), *_others(core)]


def _users(core: Core) -> list[Operation]:
    routes = _AdminRoutes(core)
    one = "/v1/users/{user}"
    return [
        Operation(
            "GET",
            "/v1/users",
            routes.users,
            "List the users that are known; for administrators",
            parameters=Page,
            answer=UserList,
            tag="users",
        ),
        Operation(
            "GET",
            one,
            routes.user,
            "Tell about a user",
            parameters=UserParameters,
            answer=UserDocument,
            tag="users",
        ),
        Operation(
            "PUT",
            one,
            routes.change_user,
            "Make a user known, an administrator, or shut them out",
            parameters=UserParameters,
            body=UserBody,
            answer=UserDocument,
            tag="users",
        ),
        Operation(
            "DELETE",
            one,
            routes.remove_user,
            "Forget a user who has no folders",
            parameters=UserParameters,
            status=204,
            problems=(409,),
            tag="users",
        ),
    ]


def _groups(core: Core) -> list[Operation]:
    routes = _AdminRoutes(core)
    one = "/v1/groups/{group}"
    member = f"{one}/members/{{user}}"
    return [
        Operation(
            "GET",
            "/v1/groups",
            routes.groups,
            "List the groups that you are in; for administrators, all",
            parameters=Page,
            answer=GroupList,
            tag="groups",
        ),
        Operation(
            "GET",
            one,
            routes.group,
            "Tell about a group",
            parameters=GroupParameters,
            answer=GroupDocument,
            tag="groups",
        ),
        Operation(
            "PUT",
            one,
            routes.make_group,
            "Make a group; one that is there is fine",
            parameters=GroupParameters,
            answer=GroupDocument,
            also={201: "It is new."},
            tag="groups",
        ),
        Operation(
            "DELETE",
            one,
            routes.remove_group,
            "Forget a group that has no folders",
            parameters=GroupParameters,
            status=204,
            problems=(409,),
            tag="groups",
        ),
        Operation(
            "PUT",
            member,
            routes.set_member,
            "Let a user into a group, or change what kind of member",
            parameters=MemberParameters,
            body=MemberBody,
            answer=GroupDocument,
            tag="groups",
        ),
        Operation(
            "DELETE",
            member,
            routes.remove_member,
            "Take a user out of a group",
            parameters=MemberParameters,
            status=204,
            tag="groups",
        ),
    ]


def _others(core: Core) -> list[Operation]:
    routes = _AdminRoutes(core)
    quota = "/v1/quotas/{kind}/{name}"
    return [
        Operation(
            "GET",
            quota,
            routes.account,
            "Tell what a user or a group holds, and may hold",
            parameters=HolderParameters,
            answer=AccountDocument,
            tag="quotas",
        ),
        Operation(
            "PUT",
            quota,
            routes.set_limits,
            "Limit what a user or a group may hold",
            parameters=HolderParameters,
            body=LimitsDocument,
            answer=AccountDocument,
            tag="quotas",
        ),
        Operation(
            "DELETE",
            quota,
            routes.unset_limits,
            "Let the settings' usual limits hold for a user or a group",
            parameters=HolderParameters,
            answer=AccountDocument,
            tag="quotas",
        ),
        Operation(
            "GET",
            "/v1/volumes",
            routes.volumes,
            "List the volumes",
            answer=VolumeList,
            tag="volumes",
        ),
        Operation(
            "GET",
            "/v1/audit",
            routes.audit,
            "Tell what was changed: of a folder, to its owner; of everything, to administrators",
            parameters=ListAudit,
            answer=AuditList,
            problems=(404,),
            tag="audit",
        ),
    ]


class _AdminRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._administration = Administration(core)

    # -- users

    def users(self, call: Call[Page, NoModel]) -> UserList:
        wanted = call.parameters
        found = self._administration.users(call.who, wanted.after, wanted.limit)
        more = found[-1].name if len(found) == wanted.limit else None
        return UserList(items=[_user(user) for user in found], next=more)

    def user(self, call: Call[UserParameters, NoModel]) -> UserDocument:
        user, standing = self._administration.user(call.who, call.parameters.user)
        return _user(user, standing.groups)

    def change_user(self, call: Call[UserParameters, UserBody]) -> UserDocument:
        user = self._administration.change_user(
            call.who, call.parameters.user, admin=call.body.admin, disabled=call.body.disabled
        )
        return _user(user)

    def remove_user(self, call: Call[UserParameters, NoModel]) -> None:
        self._administration.remove(call.who, Holder(Kind.USER, call.parameters.user))

    # -- groups

    def groups(self, call: Call[Page, NoModel]) -> GroupList:
        wanted = call.parameters
        found = self._administration.groups(call.who, wanted.after, wanted.limit)
        more = found[-1].name if len(found) == wanted.limit else None
        items = [
            GroupDocument(name=each.name, created=moment(each.created), members=None)
            for each in found
        ]
        return GroupList(items=items, next=more)

    def group(self, call: Call[GroupParameters, NoModel]) -> GroupDocument:
        return _group(self._administration.group(call.who, call.parameters.group))

    def make_group(self, call: Call[GroupParameters, NoModel]) -> Answer:
        group, new = self._administration.make_group(call.who, call.parameters.group)
        return Answer(_group(group), status=201 if new else 200)

    def remove_group(self, call: Call[GroupParameters, NoModel]) -> None:
        self._administration.remove(call.who, Holder(Kind.GROUP, call.parameters.group))

    def set_member(self, call: Call[MemberParameters, MemberBody]) -> GroupDocument:
        wanted = call.parameters
        return _group(
            self._administration.set_member(
                call.who, wanted.group, wanted.user, admin=call.body.admin
            )
        )

    def remove_member(self, call: Call[MemberParameters, NoModel]) -> None:
        self._administration.remove_member(call.who, call.parameters.group, call.parameters.user)

    # -- quotas, volumes, audit

    def account(self, call: Call[HolderParameters, NoModel]) -> AccountDocument:
        return _account(self._administration.account(call.who, _holder(call.parameters)))

    def set_limits(self, call: Call[HolderParameters, LimitsDocument]) -> AccountDocument:
        return self._set(call, call.body.limits())

    def unset_limits(self, call: Call[HolderParameters, NoModel]) -> AccountDocument:
        return self._set(call, None)

    def _set(self, call: Call[HolderParameters, Any], limits: Limits | None) -> AccountDocument:
        holder = _holder(call.parameters)
        return _account(self._administration.set_limits(call.who, holder, limits))

    def volumes(self, _call: Call[NoModel, NoModel]) -> VolumeList:
        items = []
        for name, opened in self._core.volumes.items():
            volume = opened.volume
            ways = {offer.method for offer in volume.mounts("")}
            items.append(
                VolumeDocument(
                    name=name,
                    backend=volume.type,
                    capabilities=volume.capabilities,
                    usual=name == self._core.vfs.usual_volume,
                    mounts=MountWays(
                        direct="direct" in ways, nfs="nfs" in ways, fuse="fuse" in ways
                    ),
                    advisory_quota=volume.advisory_quota,
                )
            )
        return VolumeList(items=items)

    def audit(self, call: Call[ListAudit, NoModel]) -> AuditList:
        wanted = call.parameters
        found = self._administration.audit(
            call.who,
            after=wanted.after,
            limit=wanted.limit,
            folder=wanted.folder,
            actor=wanted.actor,
            action=wanted.action,
            newest_first=wanted.newest_first,
        )
        more = found[-1].number if len(found) == wanted.limit else None
        return AuditList(items=[_entry(entry) for entry in found], next=more)


def _holder(parameters: HolderParameters) -> Holder:
    return Holder(parameters.kind, parameters.name)


def _user(user: User, groups: dict[str, bool] | None = None) -> UserDocument:
    return UserDocument(name=user.name, admin=user.admin, disabled=user.disabled, groups=groups)


def _group(group: Group) -> GroupDocument:
    return GroupDocument(
        name=group.name, created=moment(group.created), members=dict(group.members)
    )


def _account(account: Account) -> AccountDocument:
    return AccountDocument(
        **quota_document(account.usage).model_dump(),
        kind=account.holder.kind,
        name=account.holder.name,
        own=account.own,
    )


def _entry(entry: Entry) -> AuditEntry:
    return AuditEntry(
        number=entry.number,
        time=moment(entry.time),
        actor=entry.actor,
        via=entry.via,
        action=entry.action,
        folder=entry.folder,
        subject=entry.subject,
        details=dict(entry.details),
    )
