"""Going through folders on a server: listing them, clearing them of leftovers, removing them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from ..names import is_reserved
from . import sftp_answers as answers
from . import sftp_wire as wire
from .sftp_answers import Entry, Refused
from .sftp_errors import translate
from .sftp_tree import Tree, is_folder
from .sftp_wire import Request, Session

_AHEAD = 8
"""Pages of a listing (OpenSSH: 100 entries each) asked for before the first is here."""

_REMOVED_AT_ONCE = 64


def open_listing(session: Session, path: bytes) -> bytes:
    """Return the handle of a folder's listing. Raises Refused."""
    return answers.string(session.result(session.send(wire.OPENDIR, wire.text(path)), wire.HANDLE))


def entries(session: Session, handle: bytes) -> Iterator[Entry]:
    """Yield what is in a folder but for itself and the one above. Raises Refused."""
    field = wire.text(handle)
    asked: deque[Request] = deque()
    ahead = 1
    while True:
        while len(asked) < ahead:
            asked.append(session.send(wire.READDIR, field))
        try:
            page = answers.names(session.result(asked.popleft(), wire.NAME))
        except Refused as error:
            if error.code == wire.END:
                return
            raise
        ahead = min(2 * ahead, _AHEAD)
        for entry in page:
            if entry.name not in (b".", b".."):
                yield entry


def entries_at(session: Session, path: bytes) -> Iterator[Entry]:
    """The same for a folder by its path."""
    handle = open_listing(session, path)
    try:
        yield from entries(session, handle)
    finally:
        session.forget(wire.CLOSE, wire.text(handle))


ReapEntry = Callable[[str, Entry, float], int]
"""Removes a leftover: the folder, the entry, seconds of age. Returns how many it removed."""


def reap_below(
    session: Session, tree: Tree, reap_entry: ReapEntry, older_than: float, folder: str = ""
) -> int:
    """Remove leftovers everywhere below a folder; return how many."""
    removed = 0
    deeper = []
    try:
        for entry in entries_at(session, tree.path(folder)):
            name = entry.name.decode(errors="replace")
            if is_reserved(name):
                removed += reap_entry(folder, entry, older_than)
            elif is_folder(entry.attributes) and name.encode() == entry.name:
                deeper.append(f"{folder}/{name}" if folder else name)
    except Refused as error:
        if error.code == wire.NO_SUCH_FILE and folder:
            return removed  # removed meanwhile
        raise translate(error, folder) from error
    return removed + sum(reap_below(session, tree, reap_entry, older_than, each) for each in deeper)


def remove_below(session: Session, path: bytes) -> None:
    """Remove everything in a folder, symbolic links as such. Raises BackendError."""
    shown = path.decode(errors="replace")
    try:
        left = -1
        while left:
            left = 0
            asked: deque[Request] = deque()
            folders = []
            for entry in entries_at(session, path):
                left += 1
                below = path.rstrip(b"/") + b"/" + entry.name
                if is_folder(entry.attributes):
                    folders.append(below)
                    continue
                asked.append(session.send(wire.REMOVE, wire.text(below)))
                while len(asked) >= _REMOVED_AT_ONCE:
                    session.done(asked.popleft())
            for request in asked:
                session.done(request)
            for folder in folders:
                remove_below(session, folder)
                session.done(session.send(wire.RMDIR, wire.text(folder)))
    except Refused as error:
        raise translate(error, shown) from error
