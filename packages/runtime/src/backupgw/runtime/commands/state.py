"""`backupgw state`: the gateway's own state into a file, and back into a database."""

from __future__ import annotations

import contextlib
import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..command import Command, CommandError, Exit, UsageError, add_json_option, global_options
from .new_file import new_file


def configure(parser: ArgumentParser) -> None:
    """Add the two subcommands."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)
    options = [global_options()]
    export = verbs.add_parser(
        "export",
        parents=options,
        help="write the state into a file",
        description="Write tokens, jobs and whatever else the gateway knows by itself into a "
        "file, as of one moment. Gateways may go on meanwhile.",
    )
    export.add_argument("file", help="the file to write; - for standard output")
    export.add_argument("--force", action="store_true", help="replace a file that exists")
    add_json_option(export)
    importing = verbs.add_parser(
        "import",
        parents=options,
        help="bring an exported state in",
        description="Bring an exported state into the database of the settings, all of it or "
        "nothing; SQLite and PostgreSQL take each other's. Stop the gateways first.",
    )
    importing.add_argument("file", help="the file to read; - for standard input")
    importing.add_argument(
        "--replace", action="store_true", help="delete the state that is there first"
    )
    importing.add_argument(
        "--dry-run", action="store_true", help="check everything, change nothing"
    )
    add_json_option(importing)


def run(arguments: Namespace) -> int:
    """Do what the verb says."""
    from ..database.state import open_state
    from ..database.transfer import export_state, import_state
    from ..settings import load

    settings = load(arguments.config, serving=())
    if arguments.verb == "export":
        if arguments.file == "-" and arguments.json:
            raise UsageError("the state goes to standard output already; give a file with --json")
        # Before the database: a file in the way is found at once.
        with (
            _target(arguments.file, replace=arguments.force) as file,
            open_state(settings) as database,
        ):
            counts = export_state(database, file)
        _tell(arguments, counts, "exported", {})
        return Exit.DONE
    with _source(arguments.file) as (file, name), open_state(settings) as database:
        counts = import_state(
            database, file, name, replace=arguments.replace, dry_run=arguments.dry_run
        )
    verb = "would import" if arguments.dry_run else "imported"
    _tell(arguments, counts, verb, {"dry_run": arguments.dry_run})
    return Exit.DONE


@contextlib.contextmanager
def _target(path: str, *, replace: bool) -> Iterator[BinaryIO]:
    """The file to write: there whole, readable by its owner only, or not at all."""
    if path == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except OSError as error:
            raise CommandError(f"cannot write: {error.strerror or error}") from error
        return
    with new_file(Path(path), replace=replace, mode=0o600) as file:
        yield file


@contextlib.contextmanager
def _source(path: str) -> Iterator[tuple[BinaryIO, str]]:
    try:
        if path == "-":
            yield sys.stdin.buffer, "standard input"
            return
        with open(path, "rb") as file:
            yield file, path
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error


def _tell(arguments: Namespace, counts: Counter[str], verb: str, more: dict[str, bool]) -> None:
    if arguments.json:
        document = {"file": arguments.file, "rows": dict(counts), **more}
        print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201
        return
    what = ", ".join(f"{name} {count}" for name, count in counts.items())
    print(f"{verb}: {what}", file=sys.stderr)  # noqa: T201


command = Command(
    name="state",
    help="export and import what the gateway itself knows",
    configure=configure,
    run=run,
)
