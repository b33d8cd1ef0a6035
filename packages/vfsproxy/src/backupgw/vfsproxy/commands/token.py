"""`backupgw vfs token`: API keys of users."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit, UsageError
from backupgw.runtime.commands.store.output import json_document, line, time_text

from . import printing
from .session import folder_of, holder_of, lifetime, session
from .verbs import FOLDER, add_verbs


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `token`."""
    create = add_verbs(parser, {"create": "make an API key of a user, and print it once"})["create"]
    create.add_argument("user", metavar="USER")
    create.add_argument(
        "--allow",
        metavar="WHAT",
        default="admin",
        help="what it is for: read-only, append, full, admin (default: whatever its user may do)",
    )
    create.add_argument(
        "--folder", metavar="FOLDER", action="append", help=f"for this one only: {FOLDER}"
    )
    create.add_argument("--lifetime", metavar="TIME", help="such as 30d (default: see [tokens])")
    create.add_argument("--name", metavar="TEXT", default="", help="what it is for, in lists")


def run(options: Namespace) -> int:
    """Make a key; `backupgw token list` and `revoke` know it."""
    from backupgw.runtime.authorisation import Scope
    from backupgw.runtime.settings_tokens import TokenSettings
    from backupgw.runtime.tokens import mint, open_store

    holder = holder_of(options.user)
    if holder.kind != "user":
        raise UsageError("a key belongs to a user")
    with session(options) as core:
        targets = ["folder:**"]
        if options.folder:
            folders = [folder_of(core, text) for text in options.folder]
            targets = [f"folder:{folder.volume}/{folder.id}" for folder in folders]
        days = core.settings.section("tokens", TokenSettings).lifetime
        now = time.time()
        expires = now + (lifetime(options.lifetime) or days * 86_400)
        try:
            scope = Scope.parse(options.allow.split(","), targets)
            text, token = mint(holder.name, scope, now=now, expires=expires, name=options.name)
        except ValueError as error:
            raise UsageError(str(error)) from error
        store = open_store(core.settings)
        try:
            store.add(token)
        finally:
            store.close()
    if options.json:
        json_document({"token": text, "id": token.id, "user": holder.name, "on": targets})
    else:
        line(text)
        printing.say(f"it is good until {time_text(expires)}; backupgw token revoke {token.id}")
    return Exit.DONE
