"""The folder of a place as a whole: found, made and removed, by the path that the operator wrote.

That path may lead over symbolic links; what lies beneath the folder may not (`sftp_tree`).
"""

from __future__ import annotations

from . import sftp_answers as answers
from . import sftp_wire as wire
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    ObjectNotFound,
)
from .sftp_answers import Attributes, Refused
from .sftp_errors import not_written, translate
from .sftp_listing import entries_at, remove_below
from .sftp_tree import Tree, is_folder
from .sftp_urls import Target
from .sftp_wire import Session


class Root:
    """What a URL names on its server.

    Args:
        folder_mode: permission bits of folders that are made.
        sync: new names are to be on the server's disk before anything is acknowledged.
    """

    def __init__(self, target: Target, folder_mode: int, *, sync: bool) -> None:
        self._path = target.path
        self._called = f"{target.server}: {target.path}"
        self._mode = folder_mode
        self._sync = sync

    def resolved(self, session: Session) -> bytes:
        """Return the folder's path as the server knows it. Raises BackendDoesNotExist."""
        try:
            request = session.send(wire.REALPATH, wire.text(self._path.encode()))
            named = answers.names(session.result(request, wire.NAME))
        except Refused as error:
            refused = translate(error, self._called)
            if isinstance(refused, ObjectNotFound):
                raise BackendDoesNotExist(f"{self._called} does not exist") from error
            raise refused from error
        if not named:
            raise BackendError(f"{self._called}: the server does not tell where that is")
        root = named[0].name.rstrip(b"/") or b"/"
        found = self._stat(session, root)
        if found is None:
            raise BackendDoesNotExist(f"{self._called} does not exist")
        if not is_folder(found):
            raise BackendDoesNotExist(f"{self._called} is not a folder")
        return root

    def create(self, session: Session) -> None:
        """Make the folder, with those above it. Raises BackendAlreadyExists."""
        top = Tree(b"/" if self._path.startswith("/") else b".", self._mode, sync=self._sync)
        segments = [each for each in self._path.split("/") if each not in ("", ".")]
        try:
            for count in range(len(segments)):
                folder = top.path("/".join(segments[: count + 1]))
                found = self._stat(session, folder)
                if found is None:
                    bits = wire.permissions(self._mode)
                    session.done(session.send(wire.MKDIR, wire.text(folder), bits))
                    top.sync_folders(session, ["/".join(segments[:count])])
                elif not is_folder(found):
                    raise BackendAlreadyExists(f"{self._called} is not a folder")
            for _ in entries_at(session, self.resolved(session)):
                raise BackendAlreadyExists(f"{self._called} is not empty")
        except Refused as error:
            raise not_written(error, self._called, None, 1) from error

    def destroy(self, session: Session) -> None:
        """Remove the folder with all it holds. Raises BackendDoesNotExist."""
        root = self.resolved(session)
        remove_below(session, root)
        try:
            session.done(session.send(wire.RMDIR, wire.text(root)))
        except Refused as error:
            raise translate(error, self._called) from error

    def _stat(self, session: Session, path: bytes) -> Attributes | None:
        """Return what is at a path, links followed; None where nothing is."""
        request = session.send(wire.STAT, wire.text(path))
        try:
            return answers.attributes(session.result(request, wire.ATTRS))
        except Refused as error:
            if error.code == wire.NO_SUCH_FILE:
                return None
            raise translate(error, self._called) from error
