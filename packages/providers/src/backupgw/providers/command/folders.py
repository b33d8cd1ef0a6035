"""`backupgw provider` sync and check: a folder of this machine, and what a provider has of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.command import Exit, UsageError
from backupgw.runtime.commands.store.output import (
    cell,
    error_text,
    json_line,
    line,
    remark,
    size_text,
)

from ..batch import Totals
from ..comparing import Finding, Found, compared
from ..moves import Job, upload
from .files import checked_folder
from .session import Session, absolute
from .transferring import Transfer


def run(session: Session) -> int:
    """Do what the verb says."""
    return _sync(session) if session.arguments.verb == "sync" else _check(session)


def _local(session: Session) -> Path:
    local = absolute(session.arguments.local)
    if not local.is_dir():
        raise UsageError(f"{local}: is no folder")
    return local


def _sync(session: Session) -> int:
    arguments = session.arguments
    local, folder = _local(session), checked_folder(arguments.folder)
    if arguments.dry_run:
        place = session.place_provider(arguments.provider).open()
        return _dry_run(session, place, local, folder)
    crew = session.crew(arguments.provider, upload, arguments.jobs)
    provider = session.place_provider(arguments.provider)
    place = provider.open()
    work = Transfer(
        session,
        provider,
        upload,
        "uploaded",
        jobs=arguments.jobs,
        crew=crew,
        verbose=arguments.verbose,
    )
    counts: Counter[Finding] = Counter()
    extra: list[str] = []

    def jobs() -> Iterator[Job]:
        for found in compared(place, local, folder):
            counts[found.finding] += 1
            match found.finding:
                case Finding.MISSING | Finding.DIFFERENT:
                    assert found.path is not None
                    yield Job(found.name, found.path, found.size)
                case Finding.EXTRA if arguments.delete:
                    extra.append(found.name)
                case Finding.SKIPPED | Finding.UNREADABLE:
                    work.say(_record(found), f"{cell(found.name)}: {found.note}, and is left out")
                    if found.finding is Finding.UNREADABLE:
                        remark(f"{cell(found.name)}: {error_text(found.note)}")

    totals = work.run(jobs())
    totals.failed += counts[Finding.UNREADABLE]
    # Only when everything else is there: a half-read folder must not empty the copy of it.
    deleted = 0
    if not totals.failed and not totals.gave_up:
        deleted = _delete_extra(place, work, extra, totals)
    session.tidy(arguments.provider)
    more = {"there_already": counts[Finding.SAME]}
    if arguments.delete:
        more["deleted"] = deleted
    if counts[Finding.SKIPPED]:
        more["skipped"] = counts[Finding.SKIPPED]
    return work.conclude(totals, **more)


def _delete_extra(place: Backend, work: Transfer, names: list[str], totals: Totals) -> int:
    deleted = 0
    for name in names:
        try:
            place.delete(name)
        except BackendError as error:
            totals.failed += 1
            remark(f"{cell(name)}: cannot be deleted: {error_text(error)}")
        else:
            deleted += 1
            work.say({"event": "deleted", "name": name}, f"deleted {cell(name)}")
    return deleted


def _dry_run(session: Session, place: Backend, local: Path, folder: str) -> int:
    counts: Counter[str] = Counter()
    for found in compared(place, local, folder):
        match found.finding:
            case Finding.MISSING | Finding.DIFFERENT:
                verb = "would upload"
            case Finding.EXTRA if session.arguments.delete:
                verb = "would delete"
            case Finding.SKIPPED | Finding.UNREADABLE:
                verb = "would leave out"
            case _:
                continue
        counts[verb] += 1
        if session.json:
            json_line({**_record(found), "event": verb.replace(" ", "_")})
        else:
            line(f"{verb} {cell(found.name)}, {size_text(found.size)}")
    if not session.json and not counts:
        line("nothing is to be done")
    return Exit.DONE


def _record(found: Found) -> dict[str, object]:
    record: dict[str, object] = {
        "event": found.finding.value,
        "name": found.name,
        "size": found.size,
    }
    return record | ({"note": error_text(found.note)} if found.note else {})


def _check(session: Session) -> int:
    arguments = session.arguments
    local, folder = _local(session), checked_folder(arguments.folder)
    place = session.place_provider(arguments.provider).open()
    counts: Counter[Finding] = Counter()
    for each in compared(place, local, folder):
        found = _content(place, each) if arguments.content or each.unsure else each
        counts[found.finding] += 1
        if found.finding is Finding.SAME:
            continue
        if session.json:
            json_line(_record(found))
        else:
            note = f" ({error_text(found.note)})" if found.note else ""
            line(f"{found.finding.value} {cell(found.name)}{note}")
    bad = counts[Finding.MISSING] + counts[Finding.DIFFERENT] + counts[Finding.UNREADABLE]
    if session.json:
        json_line({"event": "done", **{finding.value: counts[finding] for finding in Finding}})
    else:
        told = ", ".join(f"{counts[f]} {f.value}" for f in Finding if counts[f]) or "no files"
        line(f"{told}; " + ("it is not all there" if bad else "everything is there"))
    return Exit.FAILED if bad else Exit.DONE


def _content(place: Backend, found: Found) -> Found:
    """Return how a file stands when every byte counts."""
    if found.path is None or found.finding not in (Finding.SAME, Finding.DIFFERENT):
        return found
    try:
        with open(found.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Found(Finding.UNREADABLE, found.name, found.path, found.size, str(error.strerror))
    if place.hash(found.name) == digest:
        return Found(Finding.SAME, found.name, found.path, found.size)
    note = "the same size, and another content" if found.unsure or not found.note else found.note
    return Found(Finding.DIFFERENT, found.name, found.path, found.size, note)
