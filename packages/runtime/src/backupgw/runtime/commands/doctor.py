"""`backupgw doctor`: looks at everything a gateway needs, on the machine it will run on."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from ..command import Command, Exit, add_json_option


def configure(parser: ArgumentParser) -> None:
    """Add --json."""
    parser.description = (
        "Check the settings, places (with a small file that is written, read and deleted), "
        "password files, certificates, the gateway's own state and the clock. Exit status 1 when "
        "a check failed."
    )
    add_json_option(parser)


def run(arguments: Namespace) -> int:
    """Check, print, and return 1 if anything failed."""
    from .. import log
    from ..checks import Status, check_all

    log.configure("debug" if arguments.debug else "error")
    results = list(check_all(arguments.config))
    failed = any(result.status is Status.FAILED for result in results)
    if arguments.json:
        document = {
            "healthy": not failed,
            "checks": [
                {"check": r.name, "status": r.status.value, "message": r.message} for r in results
            ],
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        width = max(len(result.name) for result in results)
        for result in results:
            lines = result.message.splitlines() or [""]
            print(f"{result.status.value:<8} {result.name:<{width}}  {lines[0]}")  # noqa: T201
            for line in lines[1:]:
                print(f"{'':<8} {'':<{width}}  {line}")  # noqa: T201
    return Exit.FAILED if failed else Exit.DONE


command = Command(
    name="doctor",
    help="check settings, places, passwords and certificates",
    configure=configure,
    run=run,
)
