"""`backupgw vfs user`: who is known, and who may do everything or nothing."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import json_document

from . import printing
from .session import holder_of, session
from .verbs import add_verbs


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `user`."""
    verbs = add_verbs(
        parser,
        {
            "list": "list the users that are known",
            "set": "make a user known, an administrator, or shut them out",
            "remove": "forget a user who has no folders",
        },
    )
    for name in ("set", "remove"):
        verbs[name].add_argument("user", metavar="USER")
    for name, text in (("admin", "may do everything"), ("disabled", "may do nothing")):
        verbs["set"].add_argument(f"--{name}", choices=["yes", "no"], help=text)


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from ..folders import people
    from ..folders.administration import Administration
    from ..identity import OPERATOR

    with session(options) as core:
        administration = Administration(core)
        if options.action == "remove":
            administration.remove(OPERATOR, holder_of(options.user))
            return Exit.DONE
        if options.action == "set":
            administration.change_user(
                OPERATOR,
                holder_of(options.user).name,
                admin=None if options.admin is None else options.admin == "yes",
                disabled=None if options.disabled is None else options.disabled == "yes",
            )
        with core.database.read() as connection:
            found = people.users(connection, "", 1_000_000)
    if options.json:
        json_document(
            [{"name": user.name, "admin": user.admin, "disabled": user.disabled} for user in found]
        )
    else:
        rows = [
            (user.name, "yes" if user.admin else "", "yes" if user.disabled else "")
            for user in found
        ]
        printing.table(("user", "admin", "disabled"), rows)
    return Exit.DONE
