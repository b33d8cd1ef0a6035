"""What a place on a server tells of its items: their records, and the listing of a folder."""

from __future__ import annotations

from collections.abc import Iterator

from ..names import is_reserved
from . import sftp_wire as wire
from .base import ItemInfo
from .errors import BackendError, ObjectNotFound
from .posixfs_leftovers import STALE_AGE
from .sftp_answers import Attributes, Refused
from .sftp_errors import translate
from .sftp_listing import entries, open_listing
from .sftp_place import Place
from .sftp_tree import Tree, is_folder, is_item, is_link, link_refused
from .sftp_wire import Session


def item_info(name: str, found: Attributes) -> ItemInfo | None:
    """Make the record of a file or folder; None for what is neither."""
    atime, mtime = found.atime or 0, found.mtime or 0
    if is_folder(found):
        return ItemInfo(name, True, 0, True, atime, mtime)
    if is_item(found):
        return ItemInfo(name, True, found.size or 0, False, atime, mtime)
    return None


def listed(place: Place, name: str) -> Iterator[ItemInfo]:
    """List a folder, and remove old leftovers that lie in it.

    Raises:
        ObjectNotFound: there is none.
    """
    seat, handle = place.pool.hold(lambda session: _begin(session, place.tree, name))
    session = seat.session
    try:
        for entry in entries(session, handle):
            try:
                segment = entry.name.decode()
            except UnicodeDecodeError:
                continue  # no name could address it
            if is_reserved(segment):
                place.reap_entry(session, name, entry, STALE_AGE)
                continue
            info = item_info(segment, entry.attributes)
            if info is not None:
                yield info
    except Refused as error:
        raise translate(error, name) from error
    finally:
        session.forget(wire.CLOSE, wire.text(handle))
        place.pool.give(seat)


def _begin(session: Session, tree: Tree, name: str) -> bytes:
    asked = tree.ask_inside(session, name)
    try:
        handle = open_listing(session, tree.path(name))
    except Refused as error:
        tree.confirm_inside(session, name, asked)
        found = tree.look(session, [name])[name]
        if found is not None and is_link(found):
            raise link_refused(name) from error
        if found is not None and not is_folder(found):
            raise ObjectNotFound(f"{name} is an item, not a folder") from error
        raise translate(error, name) from error
    try:
        tree.confirm_inside(session, name, asked)
    except BackendError:
        session.forget(wire.CLOSE, wire.text(handle))
        raise
    return handle
