"""Items on a server that get another name: moved, or set aside as damaged."""

from __future__ import annotations

import secrets
import time

from . import sftp_naming as naming
from .errors import ObjectNotFound
from .sftp_answers import Attributes, Refused
from .sftp_errors import not_written, translate
from .sftp_place import Place
from .sftp_tree import is_folder, is_item, is_link, link_refused
from .sftp_wire import Session

_QUARANTINE = ".backupgw-quarantine"


def move(place: Place, name: str, new_name: str, give_name: naming.GiveName) -> None:
    """Give an item another name; `give_name` says what becomes of one that has it.

    Raises:
        BackendError: it cannot be done.
    """
    attempts = 0

    def rename(session: Session) -> None:
        nonlocal attempts
        attempts += 1
        tree = place.tree
        source_folder, folder = name.rpartition("/")[0], new_name.rpartition("/")[0]
        tree.require_inside(session, source_folder, folder)
        found = tree.look(session, [name, *([folder] if folder else [])])
        _require_item(found[name], name)
        into = found.get(folder)
        if folder and (into is None or not is_folder(into)):
            tree.make_folders(session, [folder])
        try:
            give_name(session, place.features, tree, tree.path(name), new_name, lambda: None)
        except Refused as error:
            raise not_written(error, name, place.room(session), 1) from error
        tree.sync_folders(session, dict.fromkeys((folder, source_folder)))

    def moved(session: Session) -> None:
        try:
            rename(session)
        except ObjectNotFound:
            if attempts > 1 and place.tree.look(session, [new_name])[new_name] is not None:
                return  # done by the attempt whose answer was lost
            raise

    place.pool.run(moved)


def quarantine(place: Place, name: str) -> str:
    """Set an item aside, where no protocol reaches it; return its name there."""
    parent, _, segment = name.rpartition("/")
    stamp = f"{int(time.time())}-{secrets.token_hex(4)}"
    folder = f"{_QUARANTINE}/{parent}" if parent else _QUARANTINE
    kept = f"{folder}/{segment[:200]}.{stamp}"

    def set_aside(session: Session) -> None:
        tree = place.tree
        tree.require_inside(session, parent)
        _require_item(tree.look(session, [name])[name], name)
        tree.make_folders(session, [folder])
        try:
            naming.replace(session, place.features, tree, tree.path(name), kept, lambda: None)
        except Refused as error:
            raise translate(error, name) from error
        tree.sync_folders(session, dict.fromkeys((folder, parent)))

    place.pool.run(set_aside)
    return kept


def _require_item(found: Attributes | None, name: str) -> None:
    if found is not None and is_link(found):
        raise link_refused(name)
    if found is None or not is_item(found):
        raise ObjectNotFound(name)
