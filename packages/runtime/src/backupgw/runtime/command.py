"""What a package registers to add a subcommand to `backupgw`.

An entry point of the group `backupgw.commands` names a module-level `Command`, written as a call
with literal strings, because `backupgw --help` reads the help line from the source without running
the module:

    command = Command(
        name="store", help="look into and change a place", configure=configure, run=run
    )

A command writes its answer to standard output and what it has to say about it to standard error;
it raises `CommandError` (or lets a BackendError pass) for what its user can understand and mend.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class Exit(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTLY = 3


class CommandError(Exception):
    """Something the user can mend; `str()` is all that is shown.

    Attributes:
        status: the exit status it ends the command with.
        located: every line starts with where it is wrong (a file and line), so nothing goes before.
    """

    status: int = Exit.FAILED
    located: bool = False


class UsageError(CommandError):
    """The command was called in a way it does not offer."""

    status = Exit.USAGE


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: the word after `backupgw`; the entry point has the same name.
        help: one line, lower case, no full stop.
        configure: adds arguments and, where wanted, subparsers to the command's own parser.
        run: does it and returns the exit status. Besides the command's own arguments the
            namespace has `config` (Path or None) and `debug` (bool).
    """

    name: str
    help: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


def global_options() -> ArgumentParser:
    """Return the options that every command has, for the `parents=` of a nested subparser.

    They are understood before the command's name and after it; a nested parser that wants them
    too (`backupgw config check --config X`) takes them as a parent.
    """
    parser = ArgumentParser(add_help=False)
    group = parser.add_argument_group("options of every command")
    group.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        default=SUPPRESS,
        help="settings file (default: $BACKUPGW_CONFIG, ./backupgw.toml, the user's, the system's)",
    )
    group.add_argument(
        "--debug",
        action="store_true",
        default=SUPPRESS,
        help="log everything, and show tracebacks",
    )
    return parser


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads an argument (argparse's `type`): a whole number in these bounds."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read


def add_json_option(parser: ArgumentParser) -> None:
    """Add `--json`: the command's answer as one JSON document on standard output."""
    parser.add_argument("--json", action="store_true", help="answer in JSON")
