"""How a file on a server gets a name: in the place of what had it, or unless it is taken.

What a server can do in one step is told by its extensions (`Features`); where one is missing, the
next best is done, and `Capabilities` says what is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import sftp_wire as wire
from .errors import BackendError, ObjectExists, ObjectNotFound
from .sftp_answers import Attributes, Refused
from .sftp_tree import Tree, attributes_of, is_folder, new_hidden
from .sftp_wire import Session


@dataclass(slots=True)
class Features:
    """What a server does in one step.

    Attributes:
        replace: renames over an existing file.
        link: gives a file a second name unless that is taken.
    """

    replace: bool
    link: bool
    sync: bool
    room: bool
    copy: bool


_TIMES_IN_THE_WAY = 50
"""How often another one may take a name while a file is to be replaced in steps."""

GiveName = Callable[[Session, "Features", Tree, bytes, str, "Then"], None]
"""`replace` or `name_new`."""

Then = Callable[[], None]
"""Sends what is to follow the step that names a file, without waiting."""


def features_of(session: Session, tree: Tree) -> Features:
    """Find out what works: some servers name extensions that they do not have."""
    offered = session.extensions
    gone = wire.text(tree.path(new_hidden()))
    asked = {
        name: session.extended(name, gone, gone)
        for name in (wire.POSIX_RENAME, wire.HARDLINK)
        if name in offered
    }
    works = set()
    for name, request in asked.items():
        try:
            session.done(request)
        except Refused as error:
            if error.code == wire.UNSUPPORTED:
                continue
        works.add(name)
    return Features(
        replace=wire.POSIX_RENAME in works,
        link=wire.HARDLINK in works,
        sync=wire.FSYNC in offered,
        room=wire.STATVFS in offered,
        copy=wire.COPY_DATA in offered,
    )


def replace(
    session: Session, features: Features, tree: Tree, source: bytes, name: str, then: Then
) -> None:
    """Give the file `source` a name, replacing what has it.

    Raises:
        Refused: the server said no.
        BackendError: the name is a folder's.
    """
    target = tree.path(name)
    if source == target:
        return
    if features.replace:
        with session.together():
            request = session.extended(wire.POSIX_RENAME, wire.text(source), wire.text(target))
            then()
        try:
            session.done(request)
        except Refused:
            found = _look(session, target, name)
            if found is not None and is_folder(found):
                raise BackendError(f"{name} is a folder") from None
            raise
        return
    _replace_by_steps(session, source, target, name)
    then()


def _replace_by_steps(session: Session, source: bytes, target: bytes, name: str) -> None:
    """Replace a file where the server has no single step for it: the old one steps aside, under a
    temporary name, where it lies after a crash. Others may do so at the same time; the last one's
    value stays.
    """
    for left in reversed(range(_TIMES_IN_THE_WAY)):
        refused = _rename(session, source, target)
        if refused is None:
            return
        if refused.code == wire.NO_SUCH_FILE:
            raise refused
        found = _look(session, target, name)
        if found is not None:
            if is_folder(found):
                raise BackendError(f"{name} is a folder") from None
            if _swap(session, source, target, name):
                return
        if not left:
            raise refused


def _swap(session: Session, source: bytes, target: bytes, name: str) -> bool:
    """Have the old file step aside and give its name away; whether nobody else was faster.

    Raises:
        Refused: the server said no; the old file has its name again.
    """
    aside = target.rpartition(b"/")[0] + b"/" + new_hidden().encode()
    refused = _rename(session, target, aside)
    if refused is not None:
        if refused.code == wire.NO_SUCH_FILE:
            return False
        raise refused
    refused = _rename(session, source, target)
    if refused is None or (
        _rename(session, aside, target) is not None and _look(session, target, name) is not None
    ):
        session.wait(session.send(wire.REMOVE, wire.text(aside)))  # we or another replaced it
    if refused is not None and refused.code == wire.NO_SUCH_FILE:
        raise refused
    return refused is None


def _rename(session: Session, source: bytes, target: bytes) -> Refused | None:
    """Give a file a name that nobody has; return what the server objects."""
    try:
        session.done(session.send(wire.RENAME, wire.text(source), wire.text(target)))
    except Refused as error:
        return error
    return None


def name_new(
    session: Session, features: Features, tree: Tree, source: bytes, name: str, then: Then
) -> None:
    """Give the file `source` a name unless that is taken; of several that try, one succeeds where
    the server has hard links.

    Raises:
        ObjectExists: the name is taken; `source` is as it was.
        ObjectNotFound: there is no `source` any more: another one gave it a name.
        Refused: the server said no.
    """
    target = tree.path(name)
    if features.link:
        try:
            session.done(session.extended(wire.HARDLINK, wire.text(source), wire.text(target)))
        except Refused as error:
            if _look(session, target, name) is not None:
                raise ObjectExists(f"{name} exists") from error
            if error.code == wire.NO_SUCH_FILE:
                raise
            features.link = False  # the server could, but the file system has no hard links
        else:
            with session.together():
                removed = session.send(wire.REMOVE, wire.text(source))
                then()
            try:
                session.done(removed)
            except Refused as error:
                session.wait(session.send(wire.REMOVE, wire.text(target)))
                raise ObjectNotFound(f"{name}: what was to have this name is gone") from error
            return
    if _look(session, target, name) is not None:
        raise ObjectExists(f"{name} exists")
    try:
        session.done(session.send(wire.RENAME, wire.text(source), wire.text(target)))
    except Refused as error:
        if error.code != wire.NO_SUCH_FILE and _look(session, target, name) is not None:
            raise ObjectExists(f"{name} exists") from error
        raise
    then()


def _look(session: Session, path: bytes, name: str) -> Attributes | None:
    return attributes_of(session, session.send(wire.LSTAT, wire.text(path)), name)
