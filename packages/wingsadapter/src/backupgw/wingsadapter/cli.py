"""`backupgw wings`: the backup API of game panels' nodes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backupgw.runtime.command import Command, global_options


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    serve = verbs.add_parser(
        "serve",
        parents=[global_options()],
        help="answer a Panel's requests for backups",
        description="Answer a Pelican or Pterodactyl Panel's requests for backups. Every flag can "
        "also be set in the section [wings] of the settings file; the flag wins.",
    )
    serve.add_argument(
        "--wings-file", metavar="FILE", help="the Wings file (default: /etc/pelican/config.yml)"
    )
    serve.add_argument(
        "--listen",
        metavar="ADDR",
        action="append",
        help="HOST:PORT, :PORT for every address, or unix:PATH (default: :8080); can be given "
        "several times",
    )
    serve.add_argument("--upstream", metavar="URL", help="the Wings that answers everything else")
    serve.add_argument("--place", metavar="NAME", help="[places.NAME] that holds the repository")
    serve.add_argument("--access-log", metavar="FILE", help="- is standard output")


def run(options: Namespace) -> int:
    """Do what the subcommand says; return the exit status."""
    from backupgw.runtime.commands.serve import serve

    return serve(options, overrides(options), only="wings")


def overrides(options: Namespace) -> dict[str, Any]:
    """Return what the flags set, as settings by their dotted keys."""
    from backupgw.runtime.settings_sources import Flag

    flags = {
        "wings.wings_file": ("--wings-file", options.wings_file),
        "wings.listen": ("--listen", options.listen),
        "wings.upstream": ("--upstream", options.upstream),
        "wings.restic.place": ("--place", options.place),
        "wings.access_log": ("--access-log", options.access_log),
    }
    return {key: Flag(name, value) for key, (name, value) in flags.items() if value is not None}


command = Command(
    name="wings", help="answer game panels' requests for backups", configure=configure, run=run
)
