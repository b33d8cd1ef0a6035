"""What becomes of folders: made, renamed, limited, deleted, restored.

Whatever takes long (purge, clone, snapshots, another owner) is a task's, in `tasks`.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.authorisation import Action
from backupgw.runtime.database import Connection, DatabaseConflict

from .. import audit
from ..event_records import FolderCreated, FolderDeleted
from ..identity import Identity
from ..names import folder_name
from ..problems import Problem, not_found
from . import catalogue, people
from .access import permission_of, require
from .records import Folder, Holder, Kind, Limits, Permission, Status, path_of

if TYPE_CHECKING:
    from ..core import Core
    from ..volumes import Volume

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A folder that is to be.

    Attributes:
        holder: whose; None: of who asks.
        volume: None: the usual one.
        limits: None: the settings' default.
        lifetime: seconds until it is deleted by itself.
        id, path: of a manager that has ids and a layout of its own.
    """

    name: str
    holder: Holder | None = None
    volume: str | None = None
    limits: Limits | None = None
    group_permission: Permission = Permission.READ_WRITE_DELETE
    mode: int | None = None
    lifetime: float | None = None
    id: str | None = None
    path: str | None = None


class Lifecycle:
    """Every method blocks, and raises Problem for what a client can understand."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # -- being made

    def create(
        self,
        who: Identity,
        wanted: Wanted,
        *,
        status: Status = Status.READY,
        source: str | None = None,
    ) -> Folder:
        """Make a folder.

        Args:
            status: what it is to begin with; a clone is filled before it is ready.
            source: the folder that it is cloned from.
        """
        core = self._core
        name = folder_name(wanted.name)
        volume = wanted.volume or core.vfs.usual_volume
        if volume is None:
            names = ", ".join(core.volumes)
            raise Problem(400, "volume-needed", f"say on which volume: {names}")
        opened = core.volumes.get(volume)
        if opened is None:
            raise Problem(404, "volume-not-found", "there is no such volume")
        holder = wanted.holder or Holder(Kind.USER, who.user)
        new_id = wanted.id or uuid.uuid4().hex
        path = wanted.path or path_of(new_id)
        with core.database.read() as connection:
            self._may_create(connection, who, holder, volume, new_id)
            limits = self._limits(connection, who, wanted.limits)
            now = catalogue.now(connection)
            if catalogue.find(connection, new_id) is not None:
                raise _known()
            if catalogue.named(connection, holder, name) is not None:
                raise _taken(name)
            effective = core.accounts.limits_of(connection, holder)
        folder = Folder(
            id=new_id,
            name=name,
            holder=holder,
            volume=volume,
            path=path,
            status=status,
            generation=1,
            group_permission=wanted.group_permission,
            mode=wanted.mode,
            limits=limits,
            creator=who.user,
            created=now,
            changed=now,
            expires=None if wanted.lifetime is None else now + wanted.lifetime,
            source=source,
        )
        # Of two who make one of an id that a manager has given, neither undoes the other's.
        with core.fences.alone(new_id):
            self._make(who, folder, opened.volume, effective)
        log.info(
            "folder created",
            extra={"vfolder_id": folder.id, "backend": opened.volume.type, "operation": "create"},
        )
        core.publish(
            FolderCreated(
                vfolder_id=folder.id, name=name, owner=str(holder), volume=volume, user=who.user
            )
        )
        return folder

    def _make(self, who: Identity, folder: Folder, volume: Volume, effective: Limits) -> None:
        """Make what a folder stands on, then let it be found: nobody writes without limits, nor
        into nothing.

        Args:
            effective: the limits of its owner.
        """
        core = self._core
        with core.database.read() as connection:
            if catalogue.find(connection, folder.id) is not None:
                raise _known()
        path, limits = folder.path, folder.limits
        core.accounts.set_limits(folder.scope, limits)
        core.accounts.set_limits(folder.holder.scope, effective)
        volume.backend.mkdir(path)
        if volume.quota is not None and limits != Limits():
            volume.quota.set_limit(path, limits.bytes, limits.files)
        if folder.mode is not None and volume.local_root is not None:
            os.chmod(volume.local_root / path, folder.mode)
        try:
            core.database.run(lambda connection: self._add(connection, who, folder))
        except BaseException as error:
            try:
                volume.backend.rmdir(path)
            except BackendError as left:
                log.warning("%s: an empty folder is left behind: %s", folder.id, left)
            if isinstance(error, DatabaseConflict):
                raise _taken(folder.name) from error
            raise

    def _may_create(
        self, connection: Connection, who: Identity, holder: Holder, volume: str, new_id: str
    ) -> None:
        standing = self._core.folders.standing(connection, who)
        if holder.kind is Kind.GROUP and people.find_group(connection, holder.name) is None:
            raise not_found("group")
        mine = (
            holder.name == who.user
            if holder.kind is Kind.USER
            else standing.groups.get(holder.name, False)
        )
        if not mine and not standing.admin:
            if holder.kind is Kind.GROUP and holder.name not in standing.groups:
                raise not_found("group")
            raise Problem(403, "permission-denied", f"folders of {holder} are not yours to make")
        if not self._core.folders.may(who, Action.CREATE, volume, new_id):
            raise Problem(403, "permission-denied", "the token is not for new folders there")

    def _limits(self, connection: Connection, who: Identity, wanted: Limits | None) -> Limits:
        default = self._core.accounts.folder_default
        if wanted is None:
            return default
        if not self._core.folders.standing(connection, who).admin and (
            _beyond(wanted.bytes, default.bytes) or _beyond(wanted.files, default.files)
        ):
            raise Problem(
                403, "permission-denied", "only an administrator sets limits beyond the usual ones"
            )
        return wanted

    def _add(self, connection: Connection, who: Identity, folder: Folder) -> None:
        if folder.holder.kind is Kind.USER:
            people.ensure_user(connection, folder.holder.name)
        most = self._core.vfs.most_folders
        if most and catalogue.count(connection, folder.holder) >= most:
            raise Problem(
                409,
                "too-many-folders",
                f"{folder.holder} has {most} folders already, deleted ones included",
            )
        catalogue.add(connection, folder)
        audit.note(
            connection,
            who,
            "folder.create",
            folder=folder.id,
            subject=folder.holder,
            name=folder.name,
            volume=folder.volume,
        )

    # -- being looked at

    def inspect(self, who: Identity, folder_id: str) -> tuple[Folder, Permission]:
        """Return a folder, whatever its status, and what the client may do with it."""
        with self._core.database.read() as connection:
            return self._core.folders.look_up(connection, who, folder_id)

    def listed(
        self,
        who: Identity,
        *,
        everybody: bool = False,
        after: str,
        limit: int,
        holder: Holder | None = None,
        volume: str | None = None,
        name: str | None = None,
        statuses: Sequence[Status] = (),
    ) -> list[tuple[Folder, Permission]]:
        """Return a page of the folders that a client may see.

        Args:
            everybody: those of all, for administrators.
        """
        core = self._core
        with core.database.read() as connection:
            standing = core.folders.standing(connection, who)
            everybody = everybody or who.manager
            if everybody and not standing.admin:
                raise Problem(403, "permission-denied", "only administrators see all folders")
            folders = catalogue.visible(
                connection,
                None if everybody else standing,
                after=after,
                limit=limit,
                holder=holder,
                volume=volume,
                name=name,
                statuses=statuses,
            )
            found = []
            for folder in folders:
                permission = permission_of(connection, standing, folder)
                if permission is not None:
                    found.append((folder, permission))
            return found

    # -- being changed

    def rename(self, who: Identity, folder_id: str, name: str) -> Folder:
        """Give a folder another name."""
        name = folder_name(name)

        def work(connection: Connection) -> Folder:
            folder = self._owned(connection, who, folder_id)
            if name == folder.name:
                return folder
            catalogue.change(connection, folder_id, name=name)
            audit.note(
                connection, who, "folder.rename", folder=folder_id, was=folder.name, name=name
            )
            return _again(connection, folder_id)

        try:
            return self._core.database.run(work)
        except DatabaseConflict as error:
            raise _taken(name) from error

    def set_limits(self, who: Identity, folder_id: str, limits: Limits) -> Folder:
        """Limit what a folder may hold."""
        core = self._core

        def work(connection: Connection) -> Folder:
            self._owned(connection, who, folder_id)
            self._limits(connection, who, limits)
            catalogue.change(
                connection, folder_id, limit_bytes=limits.bytes, limit_files=limits.files
            )
            audit.note(
                connection,
                who,
                "folder.limits",
                folder=folder_id,
                bytes=limits.bytes,
                files=limits.files,
            )
            return _again(connection, folder_id)

        folder = core.database.run(work)
        core.accounts.set_limits(folder.scope, limits)
        volume = core.volumes.of(folder).volume
        if volume.quota is not None:
            volume.quota.set_limit(folder.path, limits.bytes, limits.files)
        return folder

    def set_group_permission(self, who: Identity, folder_id: str, permission: Permission) -> Folder:
        """Say what the members of the group may do that a folder belongs to."""

        def work(connection: Connection) -> Folder:
            folder = self._owned(connection, who, folder_id)
            if folder.holder.kind is not Kind.GROUP:
                raise Problem(409, "not-a-group-folder", "the folder belongs to a user")
            catalogue.change(connection, folder_id, group_permission=permission)
            audit.note(
                connection,
                who,
                "folder.permission",
                folder=folder_id,
                was=folder.group_permission,
                permission=permission,
            )
            return _again(connection, folder_id)

        return self._core.database.run(work)

    def set_lifetime(self, who: Identity, folder_id: str, lifetime: float | None) -> Folder:
        """Let a folder end by itself, so many seconds from now; None: it does not."""

        def work(connection: Connection) -> Folder:
            self._owned(connection, who, folder_id)
            expires = None if lifetime is None else catalogue.now(connection) + lifetime
            catalogue.change(connection, folder_id, expires=expires)
            audit.note(connection, who, "folder.expires", folder=folder_id, expires=expires)
            return _again(connection, folder_id)

        return self._core.database.run(work)

    # -- ending

    def delete(self, who: Identity, folder_id: str) -> Folder:
        """Delete a folder so that it can be restored for a while. Again is fine.

        Raises:
            Problem: 409 while something works on it.
        """
        with self._core.fences.exclusive(folder_id) as connection:
            folder = self._owned(connection, who, folder_id)
            if folder.status is Status.DELETE_PENDING:
                return folder
            if folder.status not in (Status.READY, Status.ERROR):
                raise not_ready(folder)
            catalogue.change(
                connection,
                folder_id,
                status=Status.DELETE_PENDING,
                deleted=catalogue.now(connection),
                generation=folder.generation + 1,
            )
            audit.note(connection, who, "folder.delete", folder=folder_id, name=folder.name)
            deleted = _again(connection, folder_id)
        log.info("folder deleted", extra={"vfolder_id": folder_id, "operation": "delete"})
        self._core.publish(
            FolderDeleted(
                vfolder_id=folder_id, name=folder.name, owner=str(folder.holder), user=who.user
            )
        )
        return deleted

    def restore(self, who: Identity, folder_id: str) -> Folder:
        """Bring a deleted folder back, with all it holds."""
        try:
            with self._core.fences.exclusive(folder_id) as connection:
                folder = self._owned(connection, who, folder_id)
                if folder.status is not Status.DELETE_PENDING:
                    raise not_ready(folder)
                catalogue.change(
                    connection, folder_id, status=Status.READY, deleted=None, expires=None
                )
                audit.note(connection, who, "folder.restore", folder=folder_id, name=folder.name)
                return _again(connection, folder_id)
        except DatabaseConflict as error:
            raise Problem(
                409, "folder-exists", "its owner has another folder of that name now; rename that"
            ) from error

    def _owned(self, connection: Connection, who: Identity, folder_id: str) -> Folder:
        folder, permission = self._core.folders.look_up(connection, who, folder_id, lock=True)
        require(permission, Permission.OWNER)
        return folder


def not_ready(folder: Folder) -> Problem:
    """Return the answer about a folder whose status stands in the way."""
    return Problem(
        409,
        "folder-not-ready",
        f"the folder is {folder.status}",
        data={"status": folder.status.value},
    )


def _again(connection: Connection, folder_id: str) -> Folder:
    folder = catalogue.find(connection, folder_id)
    assert folder is not None  # the caller has changed it in this transaction
    return folder


def _taken(name: str) -> Problem:
    return Problem(409, "folder-exists", f"its owner has a folder {name!r} already")


def _known() -> Problem:
    return Problem(409, "folder-exists", "there is a folder of that id")


def _beyond(wanted: int | None, usual: int | None) -> bool:
    return usual is not None and (wanted is None or wanted > usual)
