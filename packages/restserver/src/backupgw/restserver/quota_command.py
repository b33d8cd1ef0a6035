"""`backupgw rest quota`: what the accounts hold and may hold; counts the place anew when asked."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from contextlib import closing
from typing import Any

from backupgw.runtime.command import CommandError, Exit, add_json_option


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--path", metavar="DIR", help="folder of the repositories")
    parser.add_argument(
        "--count",
        action="store_true",
        help="count the place first and correct the accounts; servers may go on meanwhile",
    )
    add_json_option(parser)


def run(options: Namespace) -> int:
    """Print the accounts."""
    from backupgw.runtime.settings import load

    from . import quota
    from .cli import place_overrides
    from .settings import RestSettings

    settings = load(options.config, place_overrides(options.path))
    place = settings.section("rest", RestSettings).place
    limited = quota.limited(settings, settings.open_place(place))
    if limited is None:
        raise CommandError(
            "there are no limits, so nobody counts; see [rest.quota] in docs/restserver.md"
        )
    if not quota.is_counted(settings):
        # Made by root, the file would be closed to the service.
        raise CommandError("there are no accounts yet; the server makes them when it starts")
    ledger = limited.ledger
    ledger.open()
    with closing(ledger):
        corrections = []
        if options.count:
            with limited:
                corrections = limited.reconcile().corrections
        usages = [
            (account, usage) for account, usage in limited.usages() if usage.used or usage.reserved
        ]
    for wrong in corrections:
        print(  # noqa: T201
            f"{wrong.scope}: corrected from {wrong.recorded.bytes} bytes in "
            f"{wrong.recorded.objects} objects to {wrong.found.bytes} in {wrong.found.objects}",
            file=sys.stderr,
        )
    documents = [_document(account, usage) for account, usage in usages]
    if options.json:
        print(json.dumps(documents, indent=2, ensure_ascii=False))  # noqa: T201
        return Exit.DONE
    line = "{:>20} {:>20} {:>10} {:>10}  {}"
    print(line.format("bytes", "of", "objects", "of", "account"))  # noqa: T201
    for each in documents:
        cells = (each["bytes"], each["limit_bytes"], each["objects"], each["limit_objects"])
        print(line.format(*("-" if cell is None else cell for cell in cells), each["account"]))  # noqa: T201
    return Exit.DONE


def _document(account: str, usage: Any) -> dict[str, Any]:
    return {
        "account": account,
        "bytes": usage.used.bytes,
        "objects": usage.used.objects,
        "reserved_bytes": usage.reserved.bytes,
        "limit_bytes": usage.limit.hard_bytes,
        "limit_objects": usage.limit.hard_objects,
    }
