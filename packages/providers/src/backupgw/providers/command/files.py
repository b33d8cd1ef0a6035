"""`backupgw provider` upload, download, ls, delete: single files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backupgw.kvstore.names import InvalidName, check_path, joined
from backupgw.runtime.command import CommandError, Exit, UsageError
from backupgw.runtime.commands.store.output import (
    cell,
    error_text,
    json_line,
    line,
    moment,
    remark,
    time_text,
)

from ..base import BaseProvider
from ..moves import Job, download, failure_of, upload
from ..place_provider import PlaceProvider
from .session import Session, absolute, explained
from .transferring import Transfer

MANY = 1 << 60
FEW = 24
"""Files for which no processes are begun."""


def run(session: Session) -> int:
    """Do what the verb says."""
    verbs = {"ls": _ls, "delete": _delete, "download": _download, "upload": _upload}
    return verbs[session.arguments.verb](session)


def checked_folder(folder: str) -> str:
    """Return where files go. Raises UsageError for what is no folder's name."""
    try:
        return check_path(folder.strip("/")) if folder.strip("/") else ""
    except InvalidName as error:
        raise UsageError(f"the folder {error}") from error


def _upload(session: Session) -> int:
    arguments = session.arguments
    folder = checked_folder(arguments.folder)
    if arguments.name is not None and len(arguments.files) > 1:
        raise UsageError("--name is for one file")
    jobs = [_job(path, folder, arguments.name) for path in arguments.files]
    names = [job.name for job in jobs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two files would be called {twice}; upload them to two folders")
    provider = session.provider(arguments.provider)
    crew = session.crew(arguments.provider, upload, arguments.jobs) if len(jobs) > FEW else None
    _ready(session, provider)
    work = Transfer(
        session, provider, upload, "uploaded", jobs=arguments.jobs, crew=crew, verbose=True
    )
    work.total_items, work.total_bytes = len(jobs), sum(job.size for job in jobs)
    totals = work.run(jobs)
    session.tidy(arguments.provider)
    return work.conclude(totals)


def _ready(session: Session, provider: BaseProvider) -> None:
    """Open a place now, so that what stands against it is said once, not for each file."""
    if isinstance(provider, PlaceProvider):
        session.place_provider(session.arguments.provider)


def _job(path: Path, folder: str, name: str | None) -> Job:
    path = absolute(path)
    try:
        size = os.stat(path).st_size
    except OSError:
        size = 0  # the upload says what is wrong, and goes on with the others
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; `backupgw provider sync` stores all in it")
    try:
        return Job(joined(folder, check_path((name or path.name).strip("/"))), path, size)
    except InvalidName as error:
        raise UsageError(f"{path}: {error}; --name says what it shall be called") from error


def _download(session: Session) -> int:
    name, target = _what(session)
    arguments = session.arguments
    if arguments.recursive:
        return _download_folder(session, "" if name == "." else checked_folder(name), target)
    path = absolute(target if target is not None else Path(name.rpartition("/")[2]))
    if path.is_dir():
        path /= name.rpartition("/")[2]
    if os.path.lexists(path) and not arguments.force:
        raise CommandError(f"{path} exists already; --force replaces it")
    provider = session.provider(arguments.provider)
    _ready(session, provider)
    work = Transfer(session, provider, download, "downloaded", jobs=1, verbose=True)
    if isinstance(provider, PlaceProvider):
        info = provider.open().info(_checked(name))
        if info.directory:
            raise CommandError(f"{name}: is a folder; --recursive fetches all in it")
        work.total_bytes, work.total_items = info.size, 1
    return work.conclude(work.run([Job(name, path)]))


def _what(session: Session) -> tuple[str, Path | None]:
    """Return what is to be fetched, and where to; note the provider."""
    arguments = session.arguments
    words = [*arguments.words]
    provider = arguments.provider or (words.pop(0) if len(words) > 1 else None)
    if provider is None or not words:
        raise UsageError("write: download PROVIDER NAME [TARGET], or download NAME -p PROVIDER")
    arguments.provider = provider
    name = words.pop(0).strip("/")
    target = arguments.target or (Path(words.pop(0)) if words else None)
    if words:
        raise UsageError(f"{words[0]!r}: one file is fetched at a time")
    return name, target


def _checked(name: str) -> str:
    try:
        return check_path(name)
    except InvalidName as error:
        raise UsageError(f"the name {error}") from error


def _download_folder(session: Session, folder: str, target: Path | None) -> int:
    arguments = session.arguments
    root = absolute(target if target is not None else Path(folder.rpartition("/")[2] or "."))
    provider = session.provider(arguments.provider)
    if isinstance(provider, PlaceProvider):
        provider.transfers.sync = False  # as cp does: the provider still has them
    crew = session.crew(arguments.provider, download, arguments.jobs)
    _ready(session, provider)
    prefix = f"{folder}/" if folder else ""
    there = 0
    refused: list[tuple[str, str]] = []
    work = Transfer(session, provider, download, "downloaded", jobs=arguments.jobs, crew=crew)

    def jobs() -> Iterator[Job]:
        nonlocal there
        for name, size, _ in _files(provider, prefix, MANY):
            try:
                path = root / check_path(name[len(prefix) :])
            except InvalidName as error:  # of a provider of somebody else's
                refused.append((name, f"its name {error}; it is left out"))
                continue
            if not arguments.force and os.path.lexists(path):
                if path.is_file() and path.stat().st_size == size:
                    there += 1
                else:
                    why = "another file of that name is there; --force replaces it"
                    refused.append((name, why))
            else:
                yield Job(name, path, size)

    totals = work.run(jobs())
    for name, why in refused:
        totals.failed += 1
        remark(f"{cell(name)}: {error_text(why)}")
    if not (totals.done or totals.failed or there):
        raise CommandError(f"{folder or arguments.provider}: there are no files in it")
    return work.conclude(totals, there_already=there)


def _ls(session: Session) -> int:
    arguments = session.arguments
    provider = session.provider(arguments.provider)
    _ready(session, provider)
    for name, size, mtime in _files(provider, arguments.prefix, arguments.max_files or MANY):
        if session.json:
            json_line({"name": name, "size": size, "mtime": moment(mtime)})
        elif arguments.long:
            line(f"{size:>14}  {time_text(mtime):<20}  {cell(name)}")
        else:
            line(cell(name))
    return Exit.DONE


def _files(provider: BaseProvider, prefix: str, most: int) -> Iterator[tuple[str, int, float]]:
    """Yield (name, bytes, seconds) as they come."""
    if isinstance(provider, PlaceProvider):
        for number, (name, info) in enumerate(provider.files(prefix)):
            if number >= most:
                return
            yield name, info.size, info.mtime
        return
    try:
        found: list[dict[str, Any]] = provider.list_files(prefix, most)
    except Exception as error:  # a provider of somebody else's
        raise CommandError(f"{provider.name}: cannot be listed: {error_text(error)}") from error
    for each in found:
        mtime = each.get("mtime")
        seconds = float(mtime) if isinstance(mtime, int | float) else 0.0
        yield str(each.get("name")), int(each.get("size") or 0), seconds


def _delete(session: Session) -> int:
    arguments = session.arguments
    provider = session.provider(arguments.provider)
    _ready(session, provider)
    names = arguments.names
    if arguments.prefix:
        names = [
            name for prefix in arguments.names for name, _, _ in _files(provider, prefix, MANY)
        ]
        if not names:
            raise CommandError(f"no name starts with {' or '.join(arguments.names)}")
    done = failed = 0
    for name in names:
        if arguments.dry_run:
            there = any(found == name for found, _, _ in _files(provider, name, MANY))
            error = None if there else CommandError("there is no such file")
        else:
            error = None if provider.delete(name) else failure_of(provider, name)  # type: ignore[assignment]
        if error is None:
            done += 1
            verb = "would delete" if arguments.dry_run else "deleted"
            if session.json:
                json_line({"event": verb.replace(" ", "_"), "name": name})
            else:
                line(f"{verb} {cell(name)}")
        else:
            failed += 1
            if session.json:
                json_line({"event": "failed", "name": name, "error": error_text(error)})
            remark(f"{cell(name)}: {_why(arguments.provider, provider, name, error)}")
    if not failed:
        return Exit.DONE
    return Exit.PARTLY if done else Exit.FAILED


def _why(called: str, provider: BaseProvider, name: str, error: BaseException) -> str:
    from backupgw.kvstore.backends.errors import ObjectNotFound

    if (
        isinstance(error, ObjectNotFound)
        and next(_files(provider, f"{name}/", 1), None) is not None
    ):
        return "is a folder; --prefix deletes all that begins so"
    return explained(called, error)
