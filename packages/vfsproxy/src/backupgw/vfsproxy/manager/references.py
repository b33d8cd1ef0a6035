"""How managers of Backend.AI call volumes, quota scopes and folders.

A quota scope is a user or, as `project:`, a group. A folder's id is the second part of its `vfid`;
its content lies where Backend.AI's own proxy would have it.
"""

from __future__ import annotations

from ..core import Core
from ..folders import catalogue, people
from ..folders.access import FolderAccess
from ..folders.administration import Administration
from ..folders.opened import OpenVolume
from ..folders.records import Folder, Holder, Kind, Permission
from ..identity import Identity
from ..problems import not_found
from .documents import ScopeBody

TAG = "manager"
"""Of all operations that are theirs."""


def holder_of(scope: str) -> Holder:
    """Return whose a quota scope is."""
    kind, _, name = scope.partition(":")
    return Holder(Kind.USER if kind == "user" else Kind.GROUP, name)


def reference_of(folder: Folder) -> str:
    """Return a folder's `vfid`."""
    kind = "user" if folder.holder.kind is Kind.USER else "project"
    return f"{kind}:{folder.holder.name}/{folder.id}"


def find_folder(core: Core, volume: str, reference: str) -> Folder:
    """Return a folder by its `vfid`. Raises Problem 404."""
    scope, _, folder_id = reference.rpartition("/")
    with core.database.read() as connection:
        folder = catalogue.find(connection, folder_id)
    if folder is None or folder.volume != volume or folder.holder != holder_of(scope):
        raise not_found("folder")
    return folder


def resolve_folder(
    core: Core, who: Identity, volume: str, reference: str, needed: Permission
) -> FolderAccess:
    """Return the content of a folder by its `vfid`. Raises Problem, as `Folders.resolve`."""
    scope, _, folder_id = reference.rpartition("/")
    access = core.folders.resolve(who, folder_id, needed)
    if access.folder.volume != volume or access.folder.holder != holder_of(scope):
        raise not_found("folder")
    return access


def volume_named(core: Core, name: str) -> OpenVolume:
    """Return a volume. Raises Problem 404."""
    opened = core.volumes.get(name)
    if opened is None:
        raise not_found("volume")
    return opened


def known_scope(core: Core, who: Identity, body: ScopeBody) -> Holder:
    """Return whose a quota scope is, made known where it is new. Raises Problem 404."""
    volume_named(core, body.volume)
    holder = holder_of(body.qsid)
    make_known(core, who, holder)
    return holder


def make_known(core: Core, who: Identity, holder: Holder) -> None:
    """See to it that there is an entry of a user or a group."""
    if holder.kind is Kind.GROUP:
        Administration(core).make_group(who, holder.name)
    else:
        core.database.run(
            lambda connection: people.ensure_user(connection, holder.name), idempotent=True
        )
