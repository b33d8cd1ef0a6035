"""`backupgw vfs share`: with whom folders are shared."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import time_text

from . import printing
from .session import folder_of, holder_of, session
from .verbs import FOLDER, add_verbs


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `share`."""
    verbs = add_verbs(
        parser,
        {
            "list": "list with whom a folder is shared",
            "set": "share a folder, or change by how much",
            "remove": "end a share",
        },
    )
    for name, verb in verbs.items():
        verb.add_argument("folder", metavar="FOLDER", help=FOLDER)
        if name != "list":
            verb.add_argument("subject", metavar="WHO", help="USER or group:GROUP")
    verbs["set"].add_argument("permission", choices=["ro", "rw", "rwd"])


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from backupgw.runtime.commands.store.output import json_document

    from ..folders.records import Permission
    from ..folders.sharing import Sharing
    from ..identity import OPERATOR

    with session(options) as core:
        folder, sharing = folder_of(core, options.folder), Sharing(core)
        match options.action:
            case "set":
                permission = Permission(options.permission)
                sharing.share(OPERATOR, folder.id, holder_of(options.subject), permission)
            case "remove":
                sharing.unshare(OPERATOR, folder.id, holder_of(options.subject))
        found = sharing.shares(OPERATOR, folder.id)
    if options.json:
        json_document(
            [{"with": str(each.subject), "permission": each.permission} for each in found]
        )
    else:
        printing.table(
            ("with", "permission", "since"),
            [(each.subject, each.permission, time_text(each.created)) for each in found],
        )
    return Exit.DONE
