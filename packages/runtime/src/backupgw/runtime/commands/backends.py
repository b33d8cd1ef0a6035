"""`backupgw config add|list|show NAME|remove|import`: places by name, as pyrestserver has them."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..command import CommandError, Exit, UsageError, add_json_option, global_options

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from ..named_places import NamedPlaces, Table

VERBS = ("add", "list", "remove", "import")


def configure(verbs: _SubParsersAction[ArgumentParser]) -> None:
    """Add the subcommands."""
    options = [global_options()]
    add = verbs.add_parser(
        "add",
        parents=options,
        help="name a backend, so that it can be served and used as a place",
        description="Write a place into backends.toml beside the settings file, readable for its "
        "owner alone. `backupgw rest serve --backend-config NAME` serves it; it is also what "
        "[places.NAME] in the settings file would be.",
    )
    add.add_argument("name")
    add.add_argument(
        "--type",
        required=True,
        metavar="TYPE",
        help="local, drime, or another backend's URL scheme (then with --url)",
    )
    add.add_argument("--path", help="local: the folder; drime: a folder of the workspace")
    add.add_argument(
        "--api-key",
        metavar="KEY",
        help="drime: the API key; asked for when left out, which nobody else can see",
    )
    add.add_argument(
        "--api-key-file", metavar="FILE", type=Path, help="drime: read the key from this file"
    )
    add.add_argument(
        "--workspace-id", metavar="N", type=int, help="drime: the workspace (default: 0, personal)"
    )
    add.add_argument("--api-url", metavar="URL", help="drime: another API than Drime's own")
    add.add_argument(
        "--delete-forever",
        metavar="true|false",
        choices=("true", "false"),
        help="drime: false sends what is deleted to Drime's trash (default: true)",
    )
    add.add_argument("--url", help="the place's URL, for other types")
    add.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an option of the backend; can be given several times",
    )
    add.add_argument("--force", action="store_true", help="replace one that exists")
    listing = verbs.add_parser("list", parents=options, help="list the named backends")
    add_json_option(listing)
    remove = verbs.add_parser(
        "remove", parents=options, help="forget a named backend; what it stores stays"
    )
    remove.add_argument("name")
    bring = verbs.add_parser(
        "import",
        parents=options,
        help="take over pyrestserver's backends",
        description="Read backends.toml and NAME.toml as pyrestserver keeps them, obscured and "
        "encrypted ones too (VAULTCONFIG_PASSWORD_NAME, VAULTCONFIG_PASSWORD, "
        "VAULTCONFIG_PASSWORD_COMMAND), and write them as `config add` does.",
    )
    bring.add_argument(
        "path",
        nargs="?",
        type=Path,
        help="a file or a folder of them (default: ~/.config/pyrestserver)",
    )
    bring.add_argument("--dry-run", action="store_true", help="only say what would be done")
    bring.add_argument("--force", action="store_true", help="replace those that exist")
    add_json_option(bring)


def run(arguments: Namespace) -> int:
    """Do what the verb says."""
    match arguments.verb:
        case "add":
            return _add(arguments)
        case "list":
            return _list(arguments)
        case "remove":
            return _remove(arguments)
        case _:
            return _import(arguments)


def show(arguments: Namespace) -> int:
    """Print one named backend, secrets hidden."""
    places = _file(arguments).read()
    table = places.get(arguments.name)
    if table is None:
        raise _unknown(arguments.name, places)
    shown = _hidden(table)
    if arguments.json:
        _print(json.dumps({"name": arguments.name, **shown}, indent=2, ensure_ascii=False))
    else:
        _print(f"[{arguments.name}]")
        for key, value in shown.items():
            _print(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return Exit.DONE


def _file(arguments: Namespace) -> NamedPlaces:
    from ..named_places import NamedPlaces, path_of

    return NamedPlaces(path_of(arguments.config, os.environ))


def _unknown(name: str, places: dict[str, Table]) -> CommandError:
    from ..settings_errors import did_you_mean

    if not places:
        return CommandError(f"there is no backend {name!r}; make one with `backupgw config add`")
    return CommandError(f"there is no backend {name!r}; {did_you_mean(name, places)}")


def _hidden(table: Table) -> Table:
    from ..secrets import HIDDEN, names_secret, redact_url

    shown: Table = {}
    for key, value in table.items():
        if names_secret(key) and isinstance(value, str):
            shown[key] = HIDDEN
        elif isinstance(value, str):
            shown[key] = redact_url(value)
        else:
            shown[key] = value
    return shown


# -- add


def _add(arguments: Namespace) -> int:
    from ..named_places import PLACE_NAME

    name = arguments.name
    if not PLACE_NAME.match(name):
        raise UsageError(
            f"{name!r} is no name: it has lower-case letters, digits, - and _ only, and begins and "
            "ends with a letter or a digit"
        )
    file = _file(arguments)
    if name in file.read() and not arguments.force:
        raise CommandError(f"there is a backend {name!r} already; --force replaces it")
    table = _described(arguments)
    _check(table)
    with file.changing() as places:
        if name in places and not arguments.force:
            raise CommandError(f"there is a backend {name!r} already; --force replaces it")
        places[name] = table
    _say(f"wrote {name} to {file.path}; serve it with: backupgw rest serve --backend-config {name}")
    return Exit.DONE


def _described(arguments: Namespace) -> Table:
    from ..named_places import drime_place, local

    drime = ("api_key", "api_key_file", "workspace_id", "api_url", "delete_forever")
    kinds = {"local": ("path",), "drime": ("path", *drime)}
    _check_type(arguments.type, kinds)
    allowed = kinds.get(arguments.type, ("url",))
    wanted = "" if arguments.type in kinds else f", which wants --url {arguments.type}:…"
    for option in ("path", "url", *drime):
        if getattr(arguments, option) is not None and option not in allowed:
            flag = f"--{option.replace('_', '-')}"
            raise UsageError(f"{flag} does not belong to --type {arguments.type}{wanted}")
    table: Table
    match arguments.type:
        case "local":
            if not arguments.path:
                raise UsageError("--type local needs --path, the folder of the repositories")
            table = local(arguments.path)
        case "drime":
            table = drime_place(
                _api_key(arguments),
                path=arguments.path or "",
                workspace=arguments.workspace_id or 0,
                forever=arguments.delete_forever != "false",
            )
            if arguments.api_url:
                table["api_url"] = arguments.api_url
        case scheme:
            if not arguments.url or arguments.url.partition(":")[0].lower() != scheme:
                raise UsageError(f"--type {scheme} needs --url {scheme}:…")
            table = {"url": arguments.url}
            _warn_of_secrets(arguments)
    for option in arguments.option:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise UsageError(f"--option {key}: want NAME=VALUE")
        table[key] = value
    return table


def _check_type(kind: str, kinds: Collection[str]) -> None:
    from backupgw.kvstore.registry import schemes

    from ..settings_errors import did_you_mean

    known = {*kinds, *schemes()}
    if kind not in known:
        advice = did_you_mean(kind, known)
        raise UsageError(f"--type {kind}: no such backend is installed; {advice}")


def _warn_of_secrets(arguments: Namespace) -> None:
    from ..secrets import names_secret

    shown = [option.partition("=")[0] for option in arguments.option]
    said = [f"--option {name}" for name in shown if names_secret(name)]
    if re.match(r"[^/@]*:[^@]*@", arguments.url.partition(":")[2].lstrip("/")):
        said.append("--url")
    if said:
        _say(
            f"warning: what {' and '.join(said)} holds can be seen by every user of this machine, "
            "and stays in the shell's history; where it is a secret, write it into the file "
            'instead: password = { file = "/etc/backupgw/password" }'
        )


def _api_key(arguments: Namespace) -> Any:
    if arguments.api_key is not None and arguments.api_key_file is not None:
        raise UsageError("--api-key and --api-key-file say the same; give one of them")
    if arguments.api_key_file is not None:
        return {"file": os.path.abspath(arguments.api_key_file)}
    key: str | None = arguments.api_key
    if key is not None:
        _say(
            "warning: a key on the command line can be seen by every user of this machine, and "
            "stays in the shell's history; leave --api-key out to be asked for it"
        )
    elif sys.stdin.isatty():
        key = getpass.getpass("Drime API key: ")
    else:
        raise UsageError("there is no terminal to ask for the API key; give --api-key-file FILE")
    if not key.strip():
        raise CommandError("the API key is empty")
    return key.strip()


def _check(table: Table) -> None:
    """Make the backend, which opens nothing, so that a mistake is told now."""
    from pydantic import ValidationError

    from ..settings_errors import explain
    from ..settings_models import PlaceSettings

    try:
        place = PlaceSettings.model_validate(table)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise CommandError(explain(detail, PlaceSettings, ("url",))) from None
    from backupgw.kvstore.registry import open_place

    open_place(place.url, **place.options())


# -- list, remove, import


def _list(arguments: Namespace) -> int:
    places = _file(arguments).read()
    if arguments.json:
        shown = [{"name": name, **_hidden(table)} for name, table in places.items()]
        _print(json.dumps(shown, indent=2, ensure_ascii=False))
        return Exit.DONE
    width = max(map(len, places), default=0)
    for name, table in places.items():
        _print(f"{name:<{width}}  {_hidden(table).get('url', '')}")
    if not places:
        _say("no backends yet; make one with `backupgw config add`")
    return Exit.DONE


def _remove(arguments: Namespace) -> int:
    file = _file(arguments)
    with file.changing() as places:
        if arguments.name not in places:
            raise _unknown(arguments.name, places)
        del places[arguments.name]
    _say(f"removed {arguments.name} from {file.path}; what it stores is as it was")
    return Exit.DONE


def _import(arguments: Namespace) -> int:
    from ..pyrestserver_files import found

    file = _file(arguments)
    there = file.read()
    done: list[dict[str, str]] = []
    new: dict[str, Table] = {}
    for backend in found(arguments.path, os.environ):
        status, note = "imported", backend.note
        if backend.table is None:
            status = "failed"
        elif backend.name in new or (backend.name in there and not arguments.force):
            status, note = "skipped", "there is one of that name already"
        else:
            new[backend.name] = backend.table
        done.append({"name": backend.name, "from": backend.source, "status": status, "note": note})
    if new and not arguments.dry_run:
        with file.changing() as places:
            places |= new
    if arguments.json:
        _print(json.dumps(done, indent=2, ensure_ascii=False))
    else:
        for each in done:
            note = f" ({each['note']})" if each["note"] else ""
            _print(f"{each['status']}: {each['name']} from {each['from']}{note}")
    if not done:
        raise CommandError("no backends of pyrestserver were found; name their file or folder")
    if arguments.dry_run:
        _say("nothing was written: --dry-run")
    failed = sum(each["status"] == "failed" for each in done)
    return Exit.DONE if not failed else Exit.FAILED if failed == len(done) else Exit.PARTLY


def _print(text: str) -> None:
    print(text)  # noqa: T201


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201
