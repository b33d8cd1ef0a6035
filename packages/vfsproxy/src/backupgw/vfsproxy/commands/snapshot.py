"""`backupgw vfs snapshot`: what folders held."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit, UsageError
from backupgw.runtime.commands.store.output import json_document, time_text

from . import printing
from .session import folder_of, lifetime, session
from .verbs import FOLDER, add_verbs, add_wait


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `snapshot`."""
    verbs = add_verbs(
        parser,
        {
            "list": "list a folder's snapshots",
            "create": "keep what a folder holds now",
            "restore": "bring a folder back to what it held; what came later is lost",
            "delete": "remove a snapshot",
        },
    )
    for name, verb in verbs.items():
        verb.add_argument("folder", metavar="FOLDER", help=FOLDER)
        if name != "list":
            verb.add_argument("snapshot", metavar="NAME")
            add_wait(verb)
    verbs["create"].add_argument("--lifetime", metavar="TIME", help="until it is removed: 30d")


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from ..identity import OPERATOR
    from ..tasks import snapshots

    with session(options) as core:
        folder = folder_of(core, options.folder)
        if options.action == "create":
            _, job = snapshots.submit_create(
                core, OPERATOR, folder.id, options.snapshot, lifetime(options.lifetime)
            )
            return printing.given(core, options, job)
        found = snapshots.listed(core, OPERATOR, folder.id, "", 1_000_000)
        if options.action != "list":
            mine = [each for each in found if options.snapshot in (each.id, each.name)]
            if not mine:
                raise UsageError(f"the folder has no snapshot {options.snapshot!r}")
            submit = (
                snapshots.submit_restore if options.action == "restore" else snapshots.submit_delete
            )
            return printing.given(core, options, submit(core, OPERATOR, folder.id, mine[0].id))
    if options.json:
        json_document(
            [
                {"id": each.id, "name": each.name, "status": each.status, "bytes": each.bytes}
                for each in found
            ]
        )
    else:
        rows = [
            (each.name, each.status, each.method or "-", each.bytes, time_text(each.created))
            for each in found
        ]
        printing.table(("name", "status", "method", "bytes", "created"), rows)
    return Exit.DONE
