"""Users, groups and their limits, as administrators manage them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backupgw.kvstore.ledger import Usage
from backupgw.runtime.database import Connection

from .. import audit
from ..identity import Identity
from ..problems import Problem, not_found
from . import people
from .access import require
from .people import Group, Standing, User
from .records import Holder, Kind, Limits, Permission

if TYPE_CHECKING:
    from ..core import Core


@dataclass(frozen=True, slots=True)
class Account:
    """What somebody holds, and may hold. `own` is whether the limits are their own."""

    holder: Holder
    usage: Usage
    own: bool


class Administration:
    """Every method blocks, and raises Problem for what a client can understand."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # -- users

    def users(self, who: Identity, after: str, limit: int) -> list[User]:
        """Return a page of the users that are known."""
        with self._core.database.read() as connection:
            self._administrator(connection, who)
            return people.users(connection, after, limit)

    def user(self, who: Identity, name: str) -> tuple[User, Standing]:
        """Return a user, and the groups they are in; oneself is always there."""
        with self._core.database.read() as connection:
            standing = self._core.folders.standing(connection, who)
            if name != who.user and not standing.admin:
                raise Problem(403, "permission-denied", "only administrators see other users")
            found = people.find_user(connection, name)
            of_user = people.standing(connection, name)
            if found is None and (name != who.user or who.manager):
                raise not_found("user")
            return found or User(name, False, False, None, 0.0), of_user

    def change_user(
        self, who: Identity, name: str, *, admin: bool | None, disabled: bool | None
    ) -> User:
        """Make a user known, an administrator, or shut them out."""

        def work(connection: Connection) -> User:
            self._administrator(connection, who)
            people.change_user(connection, name, admin=admin, disabled=disabled)
            audit.note(connection, who, "user.change", subject=name, admin=admin, disabled=disabled)
            found = people.find_user(connection, name)
            assert found is not None  # made above
            return found

        return self._core.database.run(work)

    def remove(self, who: Identity, holder: Holder) -> None:
        """Forget a user or group that has no folders. Raises Problem 409 where there are some."""

        def work(connection: Connection) -> None:
            self._administrator(connection, who)
            if people.has_folders(connection, holder):
                raise Problem(
                    409, "has-folders", f"{holder} has folders; purge or transfer them first"
                )
            if not people.remove(connection, holder):
                raise not_found(holder.kind)
            audit.note(connection, who, f"{holder.kind}.remove", subject=holder)

        self._core.database.run(work)

    # -- groups

    def groups(self, who: Identity, after: str, limit: int) -> list[Group]:
        """Return a page of the groups that the user is in; of all, for administrators."""
        with self._core.database.read() as connection:
            standing = self._core.folders.standing(connection, who)
            return people.groups(connection, after, limit, None if standing.admin else who.user)

    def group(self, who: Identity, name: str) -> Group:
        """Return a group with its members, to one of them."""
        with self._core.database.read() as connection:
            standing = self._core.folders.standing(connection, who)
            found = people.find_group(connection, name)
            if found is None or (name not in standing.groups and not standing.admin):
                raise not_found("group")
            return found

    def make_group(self, who: Identity, name: str) -> tuple[Group, bool]:
        """Make a group, and return whether it is new."""

        def work(connection: Connection) -> tuple[Group, bool]:
            self._administrator(connection, who)
            new = people.make_group(connection, name)
            if new:
                audit.note(connection, who, "group.create", subject=name)
            found = people.find_group(connection, name)
            assert found is not None  # made above
            return found, new

        group, new = self._core.database.run(work)
        if new:
            holder = Holder(Kind.GROUP, name)
            self._core.accounts.set_limits(holder.scope, self._core.accounts.default(Kind.GROUP))
        return group, new

    def set_member(self, who: Identity, group: str, user: str, *, admin: bool) -> Group:
        """Let a user into a group; for its administrators, too."""

        def work(connection: Connection) -> Group:
            self._over_group(connection, who, group)
            people.set_member(connection, group, user, admin=admin)
            audit.note(connection, who, "group.member", subject=user, group=group, admin=admin)
            found = people.find_group(connection, group)
            assert found is not None  # looked up above
            return found

        return self._core.database.run(work)

    def remove_member(self, who: Identity, group: str, user: str) -> None:
        """Take a user out of a group; everybody may leave."""

        def work(connection: Connection) -> None:
            if user != who.user:
                self._over_group(connection, who, group)
            if not people.remove_member(connection, group, user):
                raise not_found("member")
            audit.note(connection, who, "group.leave", subject=user, group=group)

        self._core.database.run(work)

    # -- accounts

    def account(self, who: Identity, holder: Holder) -> Account:
        """Return what a user or a group holds, in constant time; to themselves, too."""
        with self._core.database.read() as connection:
            standing = self._core.folders.standing(connection, who)
            mine = (
                holder.name == who.user
                if holder.kind is Kind.USER
                else holder.name in standing.groups
            )
            if not mine and not standing.admin:
                raise not_found(holder.kind)
            if holder.kind is Kind.GROUP and people.find_group(connection, holder.name) is None:
                raise not_found("group")
            own = people.limits_of(connection, holder)
        limits = own or self._core.accounts.default(holder.kind)
        self._core.accounts.set_limits(holder.scope, limits)
        return Account(holder, self._core.accounts.usage(holder.scope), own is not None)

    def set_limits(self, who: Identity, holder: Holder, limits: Limits | None) -> Account:
        """Limit what a user or a group may hold; None: as the settings have it."""

        def work(connection: Connection) -> None:
            self._administrator(connection, who)
            if holder.kind is Kind.USER:
                people.ensure_user(connection, holder.name)
            if not people.set_limits(connection, holder, limits):
                raise not_found(holder.kind)
            audit.note(
                connection,
                who,
                f"{holder.kind}.limits",
                subject=holder,
                bytes=None if limits is None else limits.bytes,
                files=None if limits is None else limits.files,
            )

        self._core.database.run(work)
        return self.account(who, holder)

    # -- the audit log

    def audit(
        self,
        who: Identity,
        *,
        after: int,
        limit: int,
        folder: str | None,
        actor: str | None,
        action: str | None,
        newest_first: bool,
    ) -> list[audit.Entry]:
        """Return a page of what was changed; without a folder, to administrators alone."""
        with self._core.database.read() as connection:
            standing = self._core.folders.standing(connection, who)
            if not standing.admin:
                if folder is None:
                    raise Problem(
                        403, "permission-denied", "say which folder; administrators see all"
                    )
                _, permission = self._core.folders.look_up(connection, who, folder)
                require(permission, Permission.OWNER)
            return audit.entries(
                connection,
                after=after,
                limit=limit,
                folder=folder,
                actor=actor,
                action=action,
                newest_first=newest_first,
            )

    def _administrator(self, connection: Connection, who: Identity) -> None:
        if not self._core.folders.standing(connection, who).admin:
            raise Problem(403, "permission-denied", "this is for administrators")

    def _over_group(self, connection: Connection, who: Identity, group: str) -> None:
        standing = self._core.folders.standing(connection, who)
        if people.find_group(connection, group) is None or not (
            standing.admin or group in standing.groups
        ):
            raise not_found("group")
        if not standing.admin and not standing.groups[group]:
            raise Problem(403, "permission-denied", "this is for the group's administrators")
