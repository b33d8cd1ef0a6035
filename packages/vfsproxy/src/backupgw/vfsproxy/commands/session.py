"""What each command works on: the core, as the operator of this machine."""

from __future__ import annotations

import contextlib
import re
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backupgw.runtime.command import CommandError, UsageError

if TYPE_CHECKING:
    from ..core import Core
    from ..folders.records import Folder, Holder, Limits


@contextlib.contextmanager
def session(options: Namespace) -> Iterator[Core]:
    """Yield the open core; what it refuses is a CommandError. Tasks are submitted, not run."""
    from backupgw.runtime.events import current
    from backupgw.runtime.settings import load

    from ..core import Core
    from ..names import BadName
    from ..problems import Problem

    settings = load(options.config, serving=())
    try:
        with Core(settings, current.publish, application="backupgw vfs: command") as core:
            yield core
    except Problem as problem:
        detail = problem.detail
        if problem.code == "file-exists" and getattr(options, "force", None) is False:
            detail = f"{detail.partition(';')[0]}; --force replaces it"
        raise CommandError(detail) from problem
    except BadName as error:
        raise UsageError(str(error)) from error


def holder_of(text: str) -> Holder:
    """Return a user (`alice`, `user:alice`) or a group (`group:team`).

    Raises:
        UsageError: it is neither.
    """
    from ..folders.records import Holder, Kind
    from ..names import BadName, subject_name

    kind, colon, name = text.partition(":")
    if not colon:
        kind, name = "user", text
    if kind not in ("user", "group"):
        raise UsageError(f"{text!r}: write USER, user:USER or group:GROUP")
    try:
        return Holder(Kind(kind), subject_name(name))
    except BadName as error:
        raise UsageError(str(error)) from error


def folder_of(core: Core, text: str, *, deleted: bool = False) -> Folder:
    """Return a folder by its id, or as OWNER/NAME.

    Args:
        deleted: where nobody's is called so now, the one that was until it was deleted.

    Raises:
        CommandError: there is none, or only deleted ones, which have to be named by their ids.
    """
    from ..folders import catalogue

    owner, slash, name = text.partition("/")
    with core.database.read() as connection:
        if slash:
            holder = holder_of(owner)
            found = catalogue.named(connection, holder, name)
            if found is None and (gone := catalogue.deleted_of(connection, holder, name)):
                if deleted and len(gone) == 1:
                    return gone[0]
                ids = ", ".join(folder.id for folder in gone)
                raise CommandError(f"the folder {text!r} is deleted; name it by its id: {ids}")
        else:
            found = catalogue.find(connection, text)
    if found is None:
        raise CommandError(f"there is no folder {text!r}; see: backupgw vfs folder list")
    return found


def amount(text: str | None) -> int | None:
    """Return bytes of text such as "10 GiB"; "none" is without limit.

    Raises:
        UsageError: it is no amount.
    """
    from backupgw.kvstore.layers.options import OptionInvalid, size

    if text is None or text == "none":
        return None
    try:
        return size("bytes", text)
    except OptionInvalid as error:
        raise UsageError(str(error)) from error


def limits_of(options: Namespace, was: Limits) -> Limits:
    """Return limits with what `--bytes` and `--files` say."""
    from ..folders.records import Limits

    given = was.bytes if options.bytes is None else amount(options.bytes)
    files = was.files
    if options.files is not None:
        if options.files != "none" and not re.fullmatch("[0-9]{1,18}", options.files):
            raise UsageError(f"--files {options.files}: write a number, or none")
        files = None if options.files == "none" else int(options.files)
    return Limits(given, files)


def lifetime(text: str | None) -> float | None:
    """Return seconds of text such as "30d". Raises UsageError."""
    from backupgw.kvstore.layers.options import OptionInvalid, duration

    if text is None:
        return None
    try:
        return float(duration("lifetime", text))
    except OptionInvalid as error:
        raise UsageError(str(error)) from error
