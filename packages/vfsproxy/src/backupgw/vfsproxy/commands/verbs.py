"""How a subject's verbs are added to the command line."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping

from backupgw.runtime.command import add_json_option, global_options

FOLDER = "the folder's id, or OWNER/NAME (alice/documents, group:team/common)"


def add_verbs(parser: ArgumentParser, verbs: Mapping[str, str]) -> dict[str, ArgumentParser]:
    """Add verbs, each with its line of help; return their parsers by name. `options.action` is
    the one that was asked for."""
    parsers = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    found = {}
    for name, text in verbs.items():
        found[name] = parsers.add_parser(name, parents=[global_options()], help=text)
        add_json_option(found[name])
    return found


def add_wait(verb: ArgumentParser) -> None:
    """Add the flag of verbs that begin a task."""
    verb.add_argument("--wait", action="store_true", help="until it is done")
