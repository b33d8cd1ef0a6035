"""`backupgw vfs group`: groups, and who is in them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import json_document, time_text

from . import printing
from .session import holder_of, session
from .verbs import add_verbs


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `group`."""
    verbs = add_verbs(
        parser,
        {
            "list": "list groups",
            "show": "show a group's members",
            "create": "make a group",
            "remove": "forget a group that has no folders",
            "add": "let a user into a group",
            "drop": "take a user out of a group",
        },
    )
    for name, verb in verbs.items():
        if name != "list":
            verb.add_argument("group", metavar="GROUP")
        if name in ("add", "drop"):
            verb.add_argument("user", metavar="USER")
    verbs["add"].add_argument("--admin", action="store_true", help="as its administrator")


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from ..folders.administration import Administration
    from ..identity import OPERATOR

    with session(options) as core:
        administration = Administration(core)
        if options.action == "list":
            found = administration.groups(OPERATOR, "", 1_000_000)
            if options.json:
                json_document([group.name for group in found])
            else:
                printing.table(
                    ("group", "since"), [(group.name, time_text(group.created)) for group in found]
                )
            return Exit.DONE
        holder = holder_of(f"group:{options.group}")
        match options.action:
            case "create":
                administration.make_group(OPERATOR, holder.name)
            case "remove":
                administration.remove(OPERATOR, holder)
                return Exit.DONE
            case "add":
                user = holder_of(options.user).name
                administration.set_member(OPERATOR, holder.name, user, admin=options.admin)
            case "drop":
                user = holder_of(options.user).name
                administration.remove_member(OPERATOR, holder.name, user)
        group = administration.group(OPERATOR, holder.name)
    if options.json:
        json_document({"name": group.name, "members": group.members})
    else:
        rows = [(name, "yes" if admin else "") for name, admin in group.members.items()]
        printing.table(("member", "admin"), rows)
    return Exit.DONE
