"""`backupgw config`: check, show, schema and init of the settings, migrate, and named backends."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..command import Command, CommandError, Exit, add_json_option, global_options
from . import backends


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)
    options = [global_options()]
    check = verbs.add_parser(
        "check",
        parents=options,
        help="say what is wrong with the settings",
        description="Read the settings as `backupgw serve` would, secrets included, and list "
        "every mistake. Nothing is started, no place is touched.",
    )
    add_json_option(check)
    show = verbs.add_parser(
        "show",
        parents=options,
        help="print what is in effect and where each value was set, or one named backend",
    )
    show.add_argument("name", nargs="?", help="a backend that `config add` has written")
    add_json_option(show)
    verbs.add_parser("schema", parents=options, help="print the JSON schema of the settings file")
    init = verbs.add_parser("init", parents=options, help="write a commented settings file")
    init.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path("backupgw.toml"),
        help="default ./backupgw.toml; - for standard output",
    )
    init.add_argument("--force", action="store_true", help="replace a file that exists")
    migrate = verbs.add_parser(
        "migrate",
        parents=options,
        help="bring the database's tables up to date",
        description="Bring the tables of the gateway's database to the version that this backupgw "
        "needs, whole or not at all. SQLite is brought up to date by itself when it is opened; "
        "with PostgreSQL stop the gateways of the old version, run this once, start the new ones.",
    )
    migrate.add_argument("--dry-run", action="store_true", help="only say what would be done")
    add_json_option(migrate)
    backends.configure(verbs)


def run(arguments: Namespace) -> int:
    """Do what the verb says."""
    match arguments.verb:
        case "check":
            return _check(arguments)
        case "show":
            return _show(arguments) if arguments.name is None else backends.show(arguments)
        case verb if verb in backends.VERBS:
            return backends.run(arguments)
        case "schema":
            return _schema()
        case "migrate":
            return _migrate(arguments)
        case _:
            return _init(arguments.path, replace=arguments.force)


def _check(arguments: Namespace) -> int:
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.layers.stack import LayerInvalid

    from ..settings import load
    from ..settings_errors import Issue, SettingsError

    issues: list[Issue] = []
    warnings: tuple[str, ...] = ()
    source = "no settings file"
    try:
        settings = load(arguments.config)
        source = str(settings.config or source)
        warnings = settings.warnings
        for name in settings.places:
            # Options belong to the backends; only they can say which they know.
            try:
                settings.open_place(name)
            except LayerInvalid as error:
                key = () if error.option is None else (error.option,)
                where = ("places", name, "layers", error.index, *key)
                issues.append(settings.mistake(error.message, *where).issues[0])
            except (BackendError, CommandError) as error:
                issues.append(settings.mistake(str(error), "places", name).issues[0])
    except SettingsError as error:
        issues += error.issues
    if arguments.json:
        document = {
            "valid": not issues,
            "mistakes": [
                {
                    "source": issue.origin.kind,
                    "where": issue.origin.where,
                    "line": issue.origin.line or None,
                    "key": issue.key,
                    "message": issue.message,
                }
                for issue in issues
            ],
            "warnings": list(warnings),
        }
        _print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for issue in issues:
            print(issue, file=sys.stderr)  # noqa: T201
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
        if not issues:
            _print(f"{source}: the settings are valid")
    return Exit.FAILED if issues else Exit.DONE


def _show(arguments: Namespace) -> int:
    from ..settings import load
    from ..settings_text import in_effect, plain, show

    settings = load(arguments.config)
    if arguments.json:
        document = {
            ".".join(key): {"value": plain(value), "source": str(origin)}
            for key, value, origin in in_effect(settings)
        }
        _print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _print(show(settings))
    return Exit.DONE


def _schema() -> int:
    from ..services import installed_services
    from ..settings_text import schema

    _print(json.dumps(schema(installed_services()), indent=2, ensure_ascii=False))
    return Exit.DONE


def _migrate(arguments: Namespace) -> int:
    from ..database import schema
    from ..database.state import connect_state
    from ..settings import load

    with connect_state(load(arguments.config), prepare=not arguments.dry_run) as database:
        migration = schema.migrate(database, dry_run=arguments.dry_run)
        shown = database.address.shown
    steps = [{"version": step.version, "name": step.name} for step in migration.steps]
    if arguments.json:
        document = {
            "database": shown,
            "found": migration.found,
            "needed": migration.needed,
            "steps": steps,
            "dry_run": arguments.dry_run,
        }
        _print(json.dumps(document, indent=2, ensure_ascii=False))
    elif not steps:
        _print(f"{shown}: the tables are of version {migration.needed}, as needed")
    else:
        verb = "would be migrated" if arguments.dry_run else "migrated"
        names = ", ".join(step.name for step in migration.steps)
        _print(f"{shown}: {verb} from version {migration.found} to {migration.needed} ({names})")
    return Exit.DONE


def _init(path: Path, *, replace: bool) -> int:
    from ..services import installed_services
    from ..settings_text import sample

    text = sample(installed_services())
    if str(path) == "-":
        _print(text.rstrip("\n"))
        return Exit.DONE
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if replace else os.O_EXCL)
    try:
        # Secrets will be written into it: from the start, nobody else may read it.
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise CommandError(f"{path} exists already; give another path, or --force") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    print(  # noqa: T201
        f"wrote {path}; edit it, then run: backupgw config check --config {path}", file=sys.stderr
    )
    return Exit.DONE


def _print(text: str) -> None:
    print(text)  # noqa: T201


command = Command(
    name="config",
    help="check, show or begin the settings, name backends",
    configure=configure,
    run=run,
)
