"""How an agent mounts a folder, and whether it may write there.

What is written through a mount goes around this gateway: nobody here refuses what is too much. So
a folder is offered for writing only where the storage itself keeps its limits, or where the
operator has said (`advisory_quota`) that limits are advice for mounts, which a scan then counts.

What a storage keeps are folders' own limits. Those of the owner are kept with them where all
folders of that owner have limits that together are within the owner's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backupgw.kvstore.names import check_path, joined
from backupgw.runtime.database import Connection

from .. import audit
from ..identity import Identity
from ..problems import Problem
from ..volumes import MountOffer
from . import catalogue
from .records import Folder, Holder, Limits, Permission

if TYPE_CHECKING:
    from ..core import Core

Mode = Literal["ro", "rw"]


@dataclass(frozen=True, slots=True)
class Mount:
    """What an agent is told.

    Attributes:
        offers: ways, best first.
        read_only: it must be mounted so; the agent sees to it.
        quota: native, advisory, or none where nothing is limited.
        target: where it belongs in a container.
    """

    folder: Folder
    offers: list[MountOffer]
    read_only: bool
    quota: Literal["native", "advisory", "none"]
    target: str


def mount_of(core: Core, who: Identity, folder_id: str, mode: Mode, subpath: str = "") -> Mount:
    """Return how a folder, or a folder in it, is mounted.

    Args:
        mode: what is to be done there: rw also needs the permission to delete, since nobody
            keeps a program in a container from that.

    Raises:
        Problem: 403 where the permission is too small, 404, 409 where the volume cannot be
            mounted, or not for writing.
    """
    needed = Permission.READ_ONLY if mode == "ro" else Permission.READ_WRITE_DELETE
    access = core.folders.resolve(who, folder_id, needed)
    folder, volume = access.folder, access.opened.volume
    path = folder.path
    if subpath:
        # Asked of the place: it follows no link, so that none leads the agent out.
        if not access.files.info(check_path(subpath)).directory:
            raise Problem(404, "file-not-found", "there is no such folder in it")
        path = joined(path, subpath)
    offers = volume.mounts(path)
    if not offers:
        raise Problem(409, "not-mountable", "the folder's volume cannot be mounted")
    with core.database.read() as connection:
        of_holder = core.accounts.limits_of(connection, folder.holder)
        kept = volume.quota is not None and _keeps(connection, folder.holder, of_holder)
    quota: Literal["native", "advisory", "none"] = "none"
    if of_holder != Limits() or folder.limits != Limits():
        quota = "native" if kept else "advisory"
    if mode == "rw" and quota == "advisory" and not volume.advisory_quota:
        raise Problem(
            409,
            "quota-not-native",
            "the volume cannot keep the limits of the folder and its owner for what is written "
            "through a mount; it can be mounted read-only, or the operator sets advisory_quota",
        )
    with core.database.begin() as connection:
        audit.note(connection, who, "folder.mount", folder=folder.id, mode=mode, subpath=subpath)
    return Mount(folder, offers, mode == "ro", quota, f"/home/work/{folder.name}")


def _keeps(connection: Connection, holder: Holder, most: Limits) -> bool:
    """Whether an owner's limits hold where each folder's own does."""
    folders = catalogue.limits_of(connection, holder)
    for limit, each in (
        (most.bytes, [folder.bytes for folder in folders]),
        (most.files, [folder.files for folder in folders]),
    ):
        given = [one for one in each if one is not None]
        if limit is not None and (len(given) < len(each) or sum(given) > limit):
            return False
    return True
