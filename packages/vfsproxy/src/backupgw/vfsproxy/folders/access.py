"""The one way from a request to a folder's content.

    access = folders.resolve(who, folder_id, Permission.READ_WRITE)
    with access.files.open_writer("notes/today.txt", if_absent=True) as writer: ...

What is in a `FolderAccess` does what this client may do and no more: the layers in front of the
volume know the permission, the folder's fence and its accounts. Everything here blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import UnsupportedOperation
from backupgw.kvstore.layers.permissions import PermissionsLayer
from backupgw.kvstore.layers.prefix import PrefixLayer
from backupgw.kvstore.names import check_path, joined
from backupgw.runtime.authorisation import Action, Authoriser, Target
from backupgw.runtime.database import Connection, Database

from ..identity import Identity
from ..problems import Problem, not_found
from . import catalogue, looking, people
from .fenced import FenceLayer
from .fences import Fences
from .opened import OpenVolume, Volumes
from .people import Standing
from .records import Folder, Kind, Permission
from .remembered import Remembered, shared_by

_BACKENDS = 10_000
"""Folders whose volume's type is known for the log."""


@dataclass(frozen=True, slots=True)
class FolderAccess:
    """A folder's content, as far as a client may go.

    Attributes:
        who: asks.
        folder: as it was looked up.
        permission: the client's, as far as the token that was shown goes.
        opened: the folder's volume.
        files: the content. Names are relative to the folder.
        staging: a place beside the content, not listed in it, whose bytes count towards the same
            accounts; for uploads that are gathered from parts.
    """

    who: Identity
    folder: Folder
    permission: Permission
    opened: OpenVolume
    files: Backend
    staging: Backend
    _fences: Fences

    def publish(self, staged: str, name: str, *, if_absent: bool) -> None:
        """Give what lies in the staging its name among the files, in one step where the place can.

        Raises:
            ObjectExists: `if_absent`, and there is something of that name.
            ObjectNotFound: nothing of that name is staged.
            BackendError: as `Backend.move`.
        """
        self._need(Permission.READ_WRITE)
        source = joined(self.folder.staging, check_path(staged))
        target = joined(self.folder.path, check_path(name))
        layer = self.opened.for_folders([self.folder])
        with self._fences.shared(self.folder):
            if if_absent:
                layer.move_if_absent(source, target)
            else:
                layer.move(source, target)

    def move_to(self, name: str, other: FolderAccess, new_name: str, *, if_absent: bool) -> None:
        """Move a file into another folder of the same volume; both folders' accounts follow.

        Raises:
            UnsupportedOperation: the folders are not on one volume: copy, then delete.
            ObjectExists, ObjectNotFound, QuotaExceeded: nothing was moved.
        """
        self._need(Permission.READ_WRITE_DELETE)
        other._need(Permission.READ_WRITE)
        if self.folder.volume != other.folder.volume:
            raise UnsupportedOperation("the folders are on different volumes")
        source = joined(self.folder.path, check_path(name))
        target = joined(other.folder.path, check_path(new_name))
        layer = self.opened.for_folders([self.folder, other.folder])
        with _both(self._fences, self.folder, other.folder):
            if if_absent:
                layer.move_if_absent(source, target)
            else:
                layer.move(source, target)

    def copy_to(self, name: str, other: FolderAccess, new_name: str) -> None:
        """Copy a file into another folder of the same volume, natively where the volume can; what
        is there is replaced.

        Raises:
            UnsupportedOperation: the folders are not on one volume, or it cannot copy by itself.
        """
        other._need(Permission.READ_WRITE)
        layer = self.opened.for_folders([self.folder, other.folder])
        if self.folder.volume != other.folder.volume or not layer.capabilities.copy:
            raise UnsupportedOperation("the volume cannot copy by itself")
        source = joined(self.folder.path, check_path(name))
        target = joined(other.folder.path, check_path(new_name))
        with self._fences.shared(other.folder):
            layer.copy(source, target)

    def _need(self, permission: Permission) -> None:
        require(self.permission, permission)


@contextmanager
def _both(fences: Fences, one: Folder, other: Folder) -> Iterator[None]:
    """Be inside two shared fences; always entered in one order."""
    with ExitStack() as stack:
        for folder in sorted({one.id: one, other.id: other}.values(), key=lambda each: each.id):
            stack.enter_context(fences.shared(folder))
        yield


def require(permission: Permission, needed: Permission) -> None:
    """Raise Problem 403 unless a permission is enough."""
    if not permission.includes(needed):
        raise Problem(
            403,
            "permission-denied",
            f"this needs the permission {needed} for the folder, and you have {permission}",
            data={"needed": needed.value, "permission": permission.value},
        )


class Folders:
    """Finds folders for clients, and says what they may do with them.

    Args:
        rules: the settings' rules, and tokens' limits.
        remembered: what gateways remember together of who may read, where they share a cache.
    """

    def __init__(
        self,
        database: Database,
        volumes: Volumes,
        fences: Fences,
        rules: Authoriser,
        remembered: Remembered | None = None,
    ) -> None:
        self.database = database
        self.volumes = volumes
        self.fences = fences
        self.rules = rules
        self.remembered = remembered
        self._backends: dict[str, str] = {}

    def resolve(self, who: Identity, folder_id: str, needed: Permission) -> FolderAccess:
        """Return a folder's content for a client.

        Raises:
            Problem: 404 where there is no such folder or the client may know nothing of it, 403
                where the permission is too small, 409 where its status stands in the way.
        """
        if self.remembered is not None and needed is Permission.READ_ONLY and not who.manager:
            folder, permission = self._read_only(self.remembered, who, folder_id)
        else:
            folder, permission = self._looked_up(who, folder_id)
        require(permission, needed)
        usable = folder.status.readable
        if needed is not Permission.READ_ONLY:
            usable = folder.status.writable
        if not usable:
            raise Problem(
                409,
                "folder-not-ready",
                f"the folder is {folder.status}",
                data={"status": folder.status.value},
            )
        return self.open(who, folder, permission)

    def open(self, who: Identity, folder: Folder, permission: Permission) -> FolderAccess:
        """Return a folder's content with a permission that is known already."""
        opened = self.volumes.of(folder)
        if len(self._backends) >= _BACKENDS:
            self._backends.clear()
        self._backends[folder.id] = opened.volume.type
        counted = opened.for_folders([folder])

        def limited(path: str) -> Backend:
            fenced = FenceLayer(PrefixLayer(counted, path), self.fences, folder)
            return PermissionsLayer(fenced, {"": permission.letters})

        # What is staged is the gateway's: whoever may write may also give an upload up.
        staging = FenceLayer(PrefixLayer(counted, folder.staging), self.fences, folder)
        return FolderAccess(
            who, folder, permission, opened, limited(folder.path), staging, self.fences
        )

    def backend_of(self, folder_id: str) -> str | None:
        """Return the type of a folder's volume, where this process has opened it before."""
        return self._backends.get(folder_id)

    def look_up(
        self, connection: Connection, who: Identity, folder_id: str, *, lock: bool = False
    ) -> tuple[Folder, Permission]:
        """Return a folder and what a client may do with it.

        Raises:
            Problem: 404 where there is none, or the client may know nothing of it; 403 where a
                token or a rule does not allow what the client may do otherwise.
        """
        folder = catalogue.find(connection, folder_id, lock=lock)
        if folder is None:
            raise not_found("folder")
        granted = self.granted(connection, who, folder)
        if granted is None:
            raise not_found("folder")
        return folder, self._narrowed(who, folder, granted)

    def _read_only(
        self, remembered: Remembered, who: Identity, folder_id: str
    ) -> tuple[Folder, Permission]:
        """As `look_up`, by what gateways remember. It is good for reading and nothing else."""
        known = remembered.find(folder_id, who.user)
        folder, shares, standing = known.folder, known.shares, known.standing
        if folder is None or standing is None:
            with self.database.read() as connection:
                if folder is None:
                    folder = catalogue.find(connection, folder_id)
                    shares = catalogue.shares(connection, folder_id)
                if standing is None:
                    standing = people.standing(connection, who.user)
            if folder is None:
                raise not_found("folder")
            if known.folder is None:
                remembered.keep_folder(known, folder, shares)
            if known.standing is None:
                remembered.keep_standing(known, standing)
        admitted = _admitted(standing)
        granted = _permission(admitted, folder, lambda: shared_by(shares, admitted))
        if granted is None:
            raise not_found("folder")
        self._narrowed(who, folder, granted)
        return folder, Permission.READ_ONLY

    def _looked_up(self, who: Identity, folder_id: str) -> tuple[Folder, Permission]:
        """As `look_up`, in a moment of its own."""
        if who.manager:
            folder = looking.found(self.database, folder_id)
            if folder is None:
                raise not_found("folder")
            return folder, Permission.OWNER
        with self.database.brief() as brief:
            folder = looking.find(brief, folder_id)
            if folder is None:
                raise not_found("folder")
            standing = _admitted(looking.standing(brief, who.user))
            granted = _permission(
                standing, folder, lambda: looking.shared_with(brief, folder_id, who.user)
            )
        if granted is None:
            raise not_found("folder")
        return folder, self._narrowed(who, folder, granted)

    def granted(self, connection: Connection, who: Identity, folder: Folder) -> Permission | None:
        """Return what a client may do with a folder, whatever token was shown."""
        if who.manager:
            return Permission.OWNER
        standing = self.standing(connection, who)
        return permission_of(connection, standing, folder)

    def standing(self, connection: Connection, who: Identity) -> Standing:
        """Return what a client is. Raises Problem 403 for a user who is shut out."""
        if who.manager:
            return Standing(who.user, admin=True)
        return _admitted(people.standing(connection, who.user))

    def may(self, who: Identity, action: Action, volume: str, folder_id: str) -> bool:
        """Whether token and rules let a client do something with a folder."""
        if who.manager:
            return True
        return self.rules.allows(who.principal, action, Target.folder(volume, folder_id))

    def _narrowed(self, who: Identity, folder: Folder, granted: Permission) -> Permission:
        if who.manager or self.rules.leaves_alone(who.principal):
            return granted
        for permission in reversed(Permission):
            if granted.includes(permission) and self.may(
                who, permission.actions, folder.volume, folder.id
            ):
                return permission
        raise Problem(403, "permission-denied", "the token is not for this folder")


def _admitted(found: Standing) -> Standing:
    if found.disabled:
        raise Problem(403, "user-disabled", "this user may not use the gateway")
    return found


def permission_of(connection: Connection, standing: Standing, folder: Folder) -> Permission | None:
    """Return what a user may do with a folder; None: not even know that it is there."""
    return _permission(
        standing, folder, lambda: catalogue.shared_with(connection, folder.id, standing)
    )


def _permission(
    standing: Standing, folder: Folder, shared_with: Callable[[], Permission | None]
) -> Permission | None:
    if standing.admin:
        return Permission.OWNER
    found: list[Permission] = []
    if folder.holder.kind is Kind.USER and folder.holder.name == standing.user:
        return Permission.OWNER
    if folder.holder.kind is Kind.GROUP and folder.holder.name in standing.groups:
        if standing.groups[folder.holder.name]:
            return Permission.OWNER
        found.append(folder.group_permission)
    shared = shared_with()
    if shared is not None:
        found.append(shared)
    return max(found, key=lambda permission: permission.rank, default=None)
