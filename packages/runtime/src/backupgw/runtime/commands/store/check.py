"""`backupgw store check`: the conformance suite on a place, before it is trusted."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...command import CommandError, Exit, UsageError
from .location import Location, Places
from .output import error_text, json_document, line, remark

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend
    from backupgw.kvstore.conformance import Check, Result, Subject


def check(arguments: Namespace, places: Places) -> int:
    """Run the checks; exit status 1 where a promise is broken."""
    from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError
    from backupgw.kvstore.conformance import Status, run_checks

    chosen = _chosen(arguments)
    if arguments.list:
        return _list(arguments, chosen)
    if arguments.location is None:
        raise UsageError("say which place to check; --list tells the checks")
    location = places.locate(arguments.location)
    if location.path:
        raise UsageError(
            f"{location}: check works on a whole place, in a folder of its own: {location.place}"
        )
    try:
        with places.make(location) as place:
            exists = place.info("").exists
    except BackendDoesNotExist:
        exists = False
    if not exists and not arguments.create:
        raise CommandError(
            f"{location.place}: there is no such place; --create makes it for the checks and "
            "removes it again"
        )
    subject = _subject(arguments, location)
    results: list[Result] = []
    try:
        for result in run_checks(subject, chosen):
            results.append(result)
            if not arguments.json:
                note = error_text(result.note) if result.note else ""
                line(
                    f"{result.check:<48} {result.status:<11} {result.milliseconds:>9.1f} ms  "
                    f"{note}".rstrip()
                )
    finally:
        with contextlib.suppress(BackendError):
            subject.leave()  # done, unless Ctrl-C interrupted it
    failed = [result for result in results if result.status is Status.FAILED]
    if arguments.json:
        json_document(_document(location, results, ok=not failed))
    else:
        counts = (f"{sum(r.status is status for r in results)} {status}" for status in Status)
        line(", ".join(counts))
        if failed and all(result.full for result in failed):
            remark(f"{location.place} has no room for the checks; make some, and check again")
        elif failed:
            remark(f"{location.place} breaks promises that backups depend on; do not trust it")
    return Exit.FAILED if failed else Exit.DONE


def _chosen(arguments: Namespace) -> list[Check]:
    from backupgw.kvstore.conformance import checks

    chosen = [one for one in checks if arguments.only is None or arguments.only in one.name]
    if not chosen:
        raise UsageError(f"--only {arguments.only}: no check has that in its name; see --list")
    return chosen


def _list(arguments: Namespace, chosen: list[Check]) -> int:
    if arguments.json:
        json_document([{"check": one.name, "promise": one.promise} for one in chosen])
    else:
        for one in chosen:
            line(f"{one.name:<48} {one.promise}")
    return Exit.DONE


def _subject(arguments: Namespace, location: Location) -> Subject:
    from backupgw.kvstore.conformance import Subject
    from backupgw.kvstore.registry import open_place

    factory = (
        partial(named_place, arguments.config, location.name)
        if location.name
        else partial(open_place, location.url)
    )
    return Subject(factory, soak=arguments.soak)


def named_place(config: Path | None, name: str) -> Backend:
    """Return a place of the settings, in any process: some checks need several."""
    from ...settings import load

    return load(config, serving=()).open_place(name)


def _document(location: Location, results: list[Result], *, ok: bool) -> dict[str, object]:
    return {
        "place": location.place,
        "ok": ok,
        "results": [
            {
                "check": result.check,
                "status": result.status,
                "milliseconds": round(result.milliseconds, 1),
                "note": error_text(result.note) if result.note else "",
            }
            for result in results
        ],
    }
