"""With whom folders are shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backupgw.runtime.database import Connection

from .. import audit
from ..identity import Identity
from ..problems import Problem, not_found
from . import catalogue, people
from .access import require
from .records import Folder, Holder, Kind, Permission, Share

if TYPE_CHECKING:
    from ..core import Core


class Sharing:
    """Every method blocks, and raises Problem for what a client can understand."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def shares(self, who: Identity, folder_id: str) -> list[Share]:
        """Return with whom a folder is shared; its owner sees all, others what concerns them."""
        core = self._core
        with core.database.read() as connection:
            _, permission = core.folders.look_up(connection, who, folder_id)
            found = catalogue.shares(connection, folder_id)
            if permission is Permission.OWNER:
                return found
            standing = core.folders.standing(connection, who)
            return [
                share
                for share in found
                if (share.subject.kind is Kind.USER and share.subject.name == who.user)
                or (share.subject.kind is Kind.GROUP and share.subject.name in standing.groups)
            ]

    def share(
        self, who: Identity, folder_id: str, subject: Holder, permission: Permission
    ) -> Share:
        """Share a folder, or change by how much it is shared.

        Raises:
            Problem: 404 for a group that is not there, 409 for the folder's own owner.
        """
        if permission is Permission.OWNER:
            raise Problem(400, "invalid", "a folder is shared by ro, rw or rwd")

        def work(connection: Connection) -> Share:
            folder = self._owned(connection, who, folder_id)
            if subject == folder.holder:
                raise Problem(409, "owner", f"{subject} owns the folder")
            if subject.kind is Kind.USER:
                people.ensure_user(connection, subject.name)
            elif people.find_group(connection, subject.name) is None:
                raise not_found("group")
            given = Share(folder_id, subject, permission, catalogue.now(connection), who.user)
            catalogue.share(connection, given)
            audit.note(
                connection,
                who,
                "folder.share",
                folder=folder_id,
                subject=subject,
                permission=permission,
            )
            return given

        return self._core.database.run(work)

    def unshare(self, who: Identity, folder_id: str, subject: Holder) -> None:
        """End a share. Raises Problem 404 where there is none."""

        def work(connection: Connection) -> None:
            self._owned(connection, who, folder_id)
            if not catalogue.unshare(connection, folder_id, subject):
                raise not_found("share")
            audit.note(connection, who, "folder.unshare", folder=folder_id, subject=subject)

        self._core.database.run(work)

    def leave(self, who: Identity, folder_id: str) -> None:
        """Give up what a folder is shared with the user by, who sees it no longer.

        Raises:
            Problem: 409 where the user owns it, or sees it as a member of a group.
        """

        def work(connection: Connection) -> None:
            # Whatever the token is for: who leaves gains nothing.
            folder = catalogue.find(connection, folder_id)
            if folder is None or self._core.folders.granted(connection, who, folder) is None:
                raise not_found("folder")
            if not catalogue.unshare(connection, folder_id, Holder(Kind.USER, who.user)):
                raise Problem(
                    409,
                    "not-shared",
                    "the folder is yours or your group's, not shared with you",
                )
            audit.note(connection, who, "folder.leave", folder=folder_id)

        self._core.database.run(work)

    def _owned(self, connection: Connection, who: Identity, folder_id: str) -> Folder:
        folder, permission = self._core.folders.look_up(connection, who, folder_id, lock=True)
        require(permission, Permission.OWNER)
        return folder
