"""The `backupgw` command: finds the subcommand among the installed packages and runs it.

Only the package of the subcommand that was asked for is imported; `backupgw --help` imports none
and reads the help lines from their sources.
"""

from __future__ import annotations

import os
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version

from .command import Command, CommandError, Exit, global_options

GROUP = "backupgw.commands"
INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended: 128 + SIGINT."""
PIPE_CLOSED = 141
"""As a shell reports a program whose reader went away: 128 + SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `backupgw` and return its exit status.

    Args:
        arguments: without the program's name; default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        status = _run(words)
        # Here, so that a reader that went away is noticed while it can be handled.
        sys.stdout.flush()
    except SystemExit as error:
        return _flush_after(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last place where anything can be told
        if debug:
            traceback.print_exc()
        return _tell(error)
    return status


def _flush_after(error: SystemExit) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    return error.code if isinstance(error.code, int) else Exit.FAILED if error.code else Exit.DONE


def _drop_output() -> None:
    """Let the interpreter's own last flush succeed quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(error: Exception) -> int:
    # Imported here: nothing of the kernel is needed to print a help text.
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.names import InvalidName

    from .secrets import redact_url

    if isinstance(error, CommandError):
        text = str(error)
        status = error.status
    elif isinstance(error, BackendError | InvalidName):
        text = str(error) or type(error).__name__
        status = Exit.FAILED
    elif isinstance(error, EOFError):  # who was asked has ended the input, as by Ctrl-D
        text, status = "the input ended where an answer was wanted", Exit.FAILED
    elif isinstance(error, OSError):
        text = ": ".join(str(p) for p in (error.filename, error.strerror or error) if p is not None)
        status = Exit.FAILED
    else:
        text = (
            f"internal error: {type(error).__name__}: {error}\n"
            "this is a defect of backupgw; run again with --debug to see where, and report it"
        )
        status = Exit.FAILED
    prefix = "" if isinstance(error, CommandError) and error.located else "backupgw: "
    for line in redact_url(text).splitlines() or [type(error).__name__]:
        print(f"{prefix}{line}", file=sys.stderr)  # noqa: T201
    return status


def _run(words: list[str]) -> int:
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    at = _command_position(words)
    name = words[at] if at is not None else None
    entry = entries.get(name) if name is not None else None
    if entry is None or name is None or at is None:
        _main_parser(entries).parse_args(words)
        raise AssertionError("argparse returns from no command line without a known command")
    command = _load(entry)
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


def _load(entry: EntryPoint) -> Command:
    try:
        command = entry.load()
    except (ImportError, AttributeError) as error:
        raise CommandError(
            f"the command {entry.name!r} ({entry.value}) cannot be imported: {error}; "
            "install its package again"
        ) from error
    if not isinstance(command, Command):
        raise CommandError(f"{entry.value} is registered as a command and is none")
    return command


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


if __name__ == "__main__":
    sys.exit(main())
