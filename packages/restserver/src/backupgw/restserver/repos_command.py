"""`backupgw rest repos`: the repositories of a place, one line each as soon as it is counted."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from typing import Any

from backupgw.runtime.command import Exit, UsageError, add_json_option

from .amounts import plain, size_text
from .moments import minute, stamp

_LINE = "{:>10} {:>9} {:>9} {:<17} {:<17} {:>6}  {:<16} {}"


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="only these: ann/laptop, 'ann/*', '**'"
    )
    parser.add_argument("--path", metavar="DIR", help="folder of the repositories")
    add_json_option(parser)


def run(options: Namespace) -> int:
    """Print what there is."""
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.runtime.authorisation.patterns import path_matches
    from backupgw.runtime.settings import load

    from . import survey
    from .cli import place_overrides
    from .settings import RestSettings

    if any(not pattern.strip("/") for pattern in options.patterns):
        raise UsageError("a pattern is not empty; ** means all repositories")
    settings = load(options.config, place_overrides(options.path))
    place = settings.section("rest", RestSettings).place
    printer = _Json() if options.json else _Table()
    status = Exit.DONE
    with settings.open_place(place) as backend:
        for path in survey.find(backend):
            if options.patterns and not any(
                path_matches(pattern.strip("/"), path, "") for pattern in options.patterns
            ):
                continue
            try:
                printer.add(survey.count(backend, path))
            except BackendError as error:
                print(f"backupgw: {path or '/'}: {error}", file=sys.stderr)  # noqa: T201
                status = Exit.PARTLY
    printer.end()
    return status


class _Json:
    """An array, written as it grows."""

    def __init__(self) -> None:
        self._separator = "["

    def add(self, found: Any) -> None:
        total = found.total
        document = {
            "repository": found.path,
            "owner": found.owner or None,
            "objects": total.objects,
            "bytes": total.bytes,
            "types": {
                kind: {"objects": count.objects, "bytes": count.bytes}
                for kind, count in found.types.items()
            },
            "last_write": stamp(found.last_write),
            "last_snapshot": stamp(found.last_snapshot),
            "oldest_lock": stamp(found.oldest_lock),
        }
        sys.stdout.write(f"{self._separator}\n{json.dumps(document, ensure_ascii=False)}")
        sys.stdout.flush()
        self._separator = ","

    def end(self) -> None:
        sys.stdout.write("[]\n" if self._separator == "[" else "\n]\n")


class _Table:
    """Lines with the name last: nothing has to be known beforehand to align them."""

    def __init__(self) -> None:
        head = ("size", "objects", "snapshots", "last write", "last snapshot", "lock")
        self._print(*head, "owner", "repository")

    def add(self, found: Any) -> None:
        total = found.total
        locked = found.oldest_lock
        self._print(
            size_text(total.bytes),
            total.objects,
            found.types["snapshots"].objects,
            minute(found.last_write),
            minute(found.last_snapshot),
            "-" if locked is None else _age(time.time() - locked),
            plain(found.owner or "-"),
            plain(found.path or "/"),
        )

    def end(self) -> None:
        pass

    def _print(self, *cells: object) -> None:
        print(_LINE.format(*cells).rstrip(), flush=True)  # noqa: T201


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
