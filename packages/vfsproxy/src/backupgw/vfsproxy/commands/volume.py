"""`backupgw vfs volume`: where folders lie."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import json_document

from . import printing
from .session import session
from .verbs import add_verbs, add_wait


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `volume`."""
    verbs = add_verbs(
        parser,
        {
            "list": "list volumes",
            "scan": "count a volume and correct the accounts",
            "orphans": "look for folders that nobody knows",
        },
    )
    for name in ("scan", "orphans"):
        verbs[name].add_argument("volume", metavar="NAME")
        add_wait(verbs[name])
    verbs["orphans"].add_argument("--remove", action="store_true", help="remove them, for good")


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from ..identity import OPERATOR
    from ..tasks.scanning import submit_orphans, submit_scan

    with session(options) as core:
        match options.action:
            case "scan":
                job = submit_scan(core, OPERATOR, options.volume)
                return printing.given(core, options, job)
            case "orphans":
                job = submit_orphans(core, OPERATOR, options.volume, remove=options.remove)
                return printing.given(core, options, job)
        volumes = [opened.volume for opened in core.volumes.values()]
        if options.json:
            json_document(
                [
                    {"name": each.name, "backend": each.type, "capabilities": each.capabilities}
                    for each in volumes
                ]
            )
        else:
            printing.table(
                ("volume", "backend", "can"),
                [(each.name, each.type, ", ".join(each.capabilities)) for each in volumes],
            )
    return Exit.DONE
