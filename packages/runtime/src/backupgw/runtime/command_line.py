"""Finds a subcommand among the installed packages and runs it.

Only the package of the subcommand that was asked for is imported; `backupgw --help` imports none
and reads the help lines from their sources.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

from .command import Command, global_options
from .registered import load

GROUP = "backupgw.commands"


def run(words: list[str]) -> int:
    """Run what a command line says; return the exit status. Raises whatever the command raises,
    and SystemExit."""
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    at = _command_position(words)
    name = words[at] if at is not None else None
    entry = entries.get(name) if name is not None else None
    if entry is None or name is None or at is None:
        _main_parser(entries).parse_args(words)
        raise AssertionError("argparse returns from no command line without a known command")
    command = load(entry, "command", Command)
    parser = ArgumentParser(
        prog=f"backupgw {name}", description=command.help, parents=[global_options()]
    )
    command.configure(parser)
    before = ArgumentParser(prog="backupgw", parents=[global_options()]).parse_args(words[:at])
    namespace = parser.parse_args(
        words[at + 1 :], Namespace(**({"config": None, "debug": False} | vars(before)))
    )
    return int(command.run(namespace))


def _command_position(words: Sequence[str]) -> int | None:
    """Return the index of the first word that is neither a global option nor its value."""
    position = 0
    while position < len(words):
        word = words[position]
        if not word.startswith("-"):
            return position
        if word in ("--help", "-h", "--version", "--"):
            return None
        position += 2 if word == "--config" else 1
    return None


def _main_parser(entries: dict[str, EntryPoint]) -> ArgumentParser:
    from .command_help import help_line

    parser = ArgumentParser(
        prog="backupgw",
        description="One gateway between the programs that make backups and where the bytes live.",
        epilog="`backupgw COMMAND --help` tells more. Exit status: 0 done, 1 failed, 2 wrong "
        "usage, 3 partly done.",
        parents=[global_options()],
    )
    parser.add_argument("--version", action="version", version=f"backupgw {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in sorted(entries):
        commands.add_parser(name, help=help_line(entries[name].value))
    return parser


def _version() -> str:
    try:
        return version("backupgw-runtime")
    except PackageNotFoundError:
        return "(not installed)"
