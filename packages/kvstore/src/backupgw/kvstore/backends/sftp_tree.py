"""The folder of a place on a server: paths in it, folders on the way, and that no link leads out.

A server resolves paths itself, so whether a folder is reached through a symbolic link has to be
asked: by REALPATH, which goes along with the request it is asked for where that changes nothing,
and before it where it does. What was found is held to be so for a minute.
"""

from __future__ import annotations

import secrets
import stat
import time
from collections.abc import Callable, Iterable, Sequence

from . import sftp_answers as answers
from . import sftp_wire as wire
from .errors import BackendError, ObjectNotFound, PermissionDenied
from .posixfs_leftovers import TEMPORARY
from .sftp_answers import Attributes, Refused
from .sftp_errors import translate
from .sftp_wire import Request, Session

_BELIEVED = 60.0
_REMEMBERED = 4096
_AT_ONCE = 64
"""Requests sent before the first answer is waited for."""


class Tree:
    """Paths beneath a root.

    Args:
        root: absolute, as the server resolved it.
        folder_mode: permission bits of new folders.
        sync: new names are to be on the server's disk before anything is acknowledged.
    """

    def __init__(self, root: bytes, folder_mode: int, *, sync: bool) -> None:
        self.root = root
        self._mode = folder_mode
        self._sync = sync
        self._inside: dict[str, float] = {}

    def path(self, name: str) -> bytes:
        """Return the server's path of an item or folder, "" being the root."""
        return self.root.rstrip(b"/") + b"/" + name.encode() if name else self.root

    # -- no link leads out

    def ask_inside(self, session: Session, folder: str) -> Request | None:
        """Ask whether a folder is what its name says; None where that is known."""
        if not folder or self._inside.get(folder, 0.0) > time.monotonic():
            return None
        return session.send(wire.REALPATH, wire.text(self.path(folder)))

    def confirm_inside(self, session: Session, folder: str, request: Request | None) -> None:
        """Take the answer; a folder that does not exist leads nowhere.

        Raises:
            PermissionDenied: a symbolic link is on the way.
        """
        if request is None:
            return
        try:
            entries = answers.names(session.result(request, wire.NAME))
        except Refused:
            return
        path = self.path(folder)
        if not entries or entries[0].name.rstrip(b"/") != path:
            self._refuse_links(session, folder)  # or the server writes names in another way
        if len(self._inside) >= _REMEMBERED:
            self._inside.clear()
        self._inside[folder] = time.monotonic() + _BELIEVED

    def require_inside(self, session: Session, *folders: str) -> None:
        """Ask and wait. Raises PermissionDenied."""
        asked = [(folder, self.ask_inside(session, folder)) for folder in folders]
        for folder, request in asked:
            self.confirm_inside(session, folder, request)

    def _refuse_links(self, session: Session, folder: str) -> None:
        for name, attributes in self.look(session, ancestry(folder)).items():
            if attributes is not None and is_link(attributes):
                raise link_refused(name)

    def look(self, session: Session, names: Iterable[str]) -> dict[str, Attributes | None]:
        """Return what is at each name, links not followed; None where nothing is.

        Raises:
            BackendError: the server does not tell.
        """
        wanted = list(names)
        found: dict[str, Attributes | None] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            asked = [session.send(wire.LSTAT, wire.text(self.path(name))) for name in some]
            for name, request in zip(some, asked, strict=True):
                found[name] = attributes_of(session, request, name)
        return found

    # -- folders come into being

    def make_folders(self, session: Session, names: Iterable[str]) -> None:
        """Make folders with those above them, durably; those that exist are fine.

        Raises:
            PermissionDenied: a symbolic link is on the way, or the server refuses.
            BackendError: something on the way is no folder.
        """
        wanted = list(dict.fromkeys(each for name in names for each in ancestry(name)))
        missing = []
        for name, found in self.look(session, wanted).items():
            if found is None:
                missing.append(name)
            else:
                self._require_folder(name, found)
        made = []
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            mode = wire.permissions(self._mode)
            asked = [session.send(wire.MKDIR, wire.text(self.path(name)), mode) for name in some]
            for name, request in zip(some, asked, strict=True):
                try:
                    session.done(request)
                except Refused as error:
                    self._made_by_another(session, name, error)
                made.append(name)
        if made and self._mode & 0o077:
            self._open_to_others(session, made)
        if made:
            self.sync_folders(session, dict.fromkeys(name.rpartition("/")[0] for name in made))

    def _made_by_another(self, session: Session, name: str, refused: Refused) -> None:
        found = self.look(session, [name])[name]
        if found is None:
            raise translate(refused, name) from refused
        self._require_folder(name, found)

    @staticmethod
    def _require_folder(name: str, found: Attributes) -> None:
        if is_link(found):
            raise link_refused(name)
        if not is_folder(found):
            raise BackendError(f"{name} is an item, not a folder")

    def _open_to_others(self, session: Session, names: Sequence[str]) -> None:
        """Give folders their exact mode, which the server's umask narrowed."""
        mode = wire.permissions(self._mode)
        for request in [
            session.send(wire.SETSTAT, wire.text(self.path(name)), mode) for name in names
        ]:
            try:
                session.done(request)
            except Refused:
                continue  # the server keeps modes to itself

    def sync_folders(self, session: Session, names: Iterable[str]) -> None:
        """Have the names in folders written to the server's disk, where it lets a folder be
        opened and synced, as OpenSSH does."""
        if not self._sync or wire.FSYNC not in session.extensions:
            return
        for sync in [self.syncing(session, name) for name in names]:
            sync()

    def syncing(self, session: Session, name: str) -> Callable[[], None]:
        """Begin to sync a folder, behind the requests that were sent before; what is returned
        ends it."""
        if not self._sync or wire.FSYNC not in session.extensions:
            return lambda: None
        opened = self.open_folder(session, name)

        def sync() -> None:
            handle = handle_of(session, opened)
            if handle is not None:
                field = wire.text(handle)
                session.wait(session.extended(wire.FSYNC, field))
                session.forget(wire.CLOSE, field)

        return sync

    def open_folder(self, session: Session, name: str) -> Request:
        """Ask for a handle by which a folder can be synced."""
        return session.send(
            wire.OPEN,
            wire.text(self.path(name)),
            wire.number(wire.FOR_READING),
            wire.NO_ATTRIBUTES,
        )


def ancestry(name: str) -> list[str]:
    """Return a path's folders from the outermost on, and itself."""
    segments = name.split("/") if name else []
    return ["/".join(segments[: count + 1]) for count in range(len(segments))]


def handle_of(session: Session, request: Request) -> bytes | None:
    """Return the handle that was asked for, None where the server gives none."""
    try:
        return answers.string(session.result(request, wire.HANDLE))
    except Refused:
        return None


def attributes_of(session: Session, request: Request, name: str) -> Attributes | None:
    """Return the answer to LSTAT, None where nothing is. Raises BackendError."""
    try:
        return answers.attributes(session.result(request, wire.ATTRS))
    except Refused as error:
        refused = translate(error, name)
        if isinstance(refused, ObjectNotFound):
            return None
        raise refused from error


def is_item(found: Attributes) -> bool:
    """Whether it is a regular file; a server that tells no kind has nothing else."""
    return found.mode is None or not stat.S_IFMT(found.mode) or stat.S_ISREG(found.mode)


def is_folder(found: Attributes) -> bool:
    return found.mode is not None and stat.S_ISDIR(found.mode)


def is_link(found: Attributes) -> bool:
    return found.mode is not None and stat.S_ISLNK(found.mode)


def link_refused(name: str) -> PermissionDenied:
    """Return the error for a symbolic link on the server."""
    return PermissionDenied(f"{name}: a symbolic link on the server, which is not followed")


def new_hidden() -> str:
    """Return the name of a value that is being written."""
    return TEMPORARY + secrets.token_hex(8)
