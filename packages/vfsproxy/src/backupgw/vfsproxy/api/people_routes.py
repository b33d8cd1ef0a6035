"""Users and groups."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from ..core import Core
from ..folders.administration import Administration
from ..folders.people import Group, User
from ..folders.records import Holder, Kind
from .models import Model, Page, SubjectName, moment
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


def people_operations(core: Core) -> list[Operation]:
    """Return the operations on users and groups."""
    return [*_users(core), *_groups(core)]


def _users(core: Core) -> list[Operation]:
    routes = _UserRoutes(core)
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
    routes = _GroupRoutes(core)
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


class _UserRoutes:
    def __init__(self, core: Core) -> None:
        self._administration = Administration(core)

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


class _GroupRoutes:
    def __init__(self, core: Core) -> None:
        self._administration = Administration(core)

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


def _user(user: User, groups: dict[str, bool] | None = None) -> UserDocument:
    return UserDocument(name=user.name, admin=user.admin, disabled=user.disabled, groups=groups)


def _group(group: Group) -> GroupDocument:
    return GroupDocument(
        name=group.name, created=moment(group.created), members=dict(group.members)
    )
