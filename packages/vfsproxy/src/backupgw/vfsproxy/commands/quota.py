"""`backupgw vfs quota`: what users and groups hold, and may hold."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit

from . import printing
from .session import holder_of, limits_of, session
from .verbs import add_verbs


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `quota`."""
    verbs = add_verbs(
        parser,
        {
            "show": "show what a user or a group holds, and may hold",
            "set": "limit what a user or a group may hold",
            "unset": "let the usual limits hold",
        },
    )
    for verb in verbs.values():
        verb.add_argument("holder", metavar="WHO", help="USER or group:GROUP")
    verbs["set"].add_argument("--bytes", metavar="SIZE", help="none is without limit")
    verbs["set"].add_argument("--files", metavar="N", help="none is without limit")


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from ..api.folder_documents import quota_document
    from ..folders.administration import Administration
    from ..folders.records import Limits
    from ..identity import OPERATOR

    with session(options) as core:
        administration, holder = Administration(core), holder_of(options.holder)
        account = administration.account(OPERATOR, holder)
        if options.action == "set":
            was = account.usage.limit
            limits = limits_of(options, Limits(was.hard_bytes, was.hard_objects))
            account = administration.set_limits(OPERATOR, holder, limits)
        elif options.action == "unset":
            account = administration.set_limits(OPERATOR, holder, None)
    if options.json:
        printing.model(quota_document(account.usage))
    else:
        row = [holder, *printing.usage_cells(account.usage), "own" if account.own else "usual"]
        printing.table(("who", "bytes", "of", "files", "of", "limits"), [row])
    return Exit.DONE
