"""`python -m backupgw.kvstore.conformance URL`: run the suite on a place and print a table."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..backends.errors import BackendDoesNotExist, BackendError, BackendURLInvalid
from ..layers.stack import LayerInvalid, LayerSpec
from ..registry import open_place, redact_url
from . import checks
from .subject import Subject
from .suite import Result, Status, run_checks

_MISTAKES = (BackendURLInvalid, BackendDoesNotExist, LayerInvalid, ValueError, TypeError)
"""What a wrong command line leads to; any other error before the first check is the place's."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 all kept, 1 a promise broken, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="python -m backupgw.kvstore.conformance",
        description="Check a place against every promise of a backend. Where the URL names "
        "nothing yet, a place is made and removed again; in an existing place the suite keeps to "
        "a fresh folder of its own, and leaves out what needs a whole place.",
    )
    parser.add_argument("url")
    parser.add_argument(
        "--option", metavar="NAME=VALUE", action="append", default=[], help="for the backend"
    )
    parser.add_argument(
        "--layer",
        metavar="NAME|JSON",
        action="append",
        default=[],
        help='around it, outermost first: retry, or {"layer": "retry", "attempts": 3}',
    )
    parser.add_argument("--only", metavar="TEXT", help="run the checks whose name contains this")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--soak", action="store_true", help="full counts; takes long")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the short counts, for slow services"
    )
    given = parser.parse_args(arguments)
    options: dict[str, Any] = {}
    for option in given.option:
        name, equals, value = option.partition("=")
        if not equals:
            parser.error(f"--option {option}: want NAME=VALUE")
        options[name] = value
    layers: list[LayerSpec] = []
    for layer in given.layer:
        try:
            layers.append(json.loads(layer) if layer.startswith("{") else layer)
        except ValueError as error:
            parser.error(f"--layer {layer}: not JSON: {error}")
    chosen = [check for check in checks if given.only is None or given.only in check.name]
    if not chosen:
        parser.error(f"--only {given.only}: no check has that in its name")
    results: list[Result] = []
    try:
        subject = Subject(
            partial(open_place, given.url, layers=layers, **options),
            soak=given.soak,
            scale=given.scale,
        )
        try:
            for result in run_checks(subject, chosen):
                results.append(result)
                if not given.json:
                    sys.stdout.write(_line(result) + "\n")
                    sys.stdout.flush()
        finally:
            with contextlib.suppress(BackendError):
                subject.leave()  # done, unless Ctrl-C interrupted it
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    except (BackendError, ValueError, TypeError) as error:
        sys.stderr.write(f"{redact_url(given.url)}: {error}\n")
        return 1 if results or not isinstance(error, _MISTAKES) else 2
    failed = [result for result in results if result.status is Status.FAILED]
    sys.stdout.write((_as_json(given.url, results) if given.json else _summary(results)) + "\n")
    return 1 if failed else 0


def _line(result: Result) -> str:
    note = result.note.encode(errors="backslashreplace").decode()
    return f"{result.check:<48} {result.status:<11} {result.milliseconds:>9.1f} ms  {note}".rstrip()


def _summary(results: Sequence[Result]) -> str:
    counts = [f"{sum(r.status is status for r in results)} {status}" for status in Status]
    return ", ".join(counts)


def _as_json(url: str, results: Sequence[Result]) -> str:
    return json.dumps(
        {
            "url": redact_url(url),
            "ok": all(result.status is not Status.FAILED for result in results),
            "results": [
                {
                    "check": result.check,
                    "status": result.status,
                    "milliseconds": round(result.milliseconds, 1),
                    "note": result.note,
                }
                for result in results
            ],
        },
        indent=2,
    )


if __name__ == "__main__":
    sys.exit(main())
