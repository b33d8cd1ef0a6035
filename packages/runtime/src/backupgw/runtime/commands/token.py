"""`backupgw token`: create, list, show and revoke bearer tokens."""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..command import Command, CommandError, Exit, UsageError, add_json_option, global_options

if TYPE_CHECKING:
    from ..settings import Settings
    from ..tokens import DatabaseTokens, Token

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}


def configure(parser: ArgumentParser) -> None:
    """Add the four subcommands."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)
    options = [global_options()]
    create = verbs.add_parser(
        "create",
        parents=options,
        help="make a token and print it, once",
        description="Make a token and print it. It is shown this once; only its hash is kept.",
    )
    create.add_argument("--user", required=True, help="whom it acts for")
    create.add_argument(
        "--allow",
        required=True,
        action="append",
        metavar="ACTIONS",
        help="what it is for, separated by commas: read, write-only, append, full, …",
    )
    create.add_argument(
        "--on",
        required=True,
        action="append",
        metavar="PATTERN",
        help="where, such as 'repository:default/alice/**'; may be given again",
    )
    create.add_argument(
        "--expires",
        metavar="WHEN",
        help="30m, 12h, 90d, 8w, 2y, a day such as 2027-01-31 (UTC), or never; "
        "default `lifetime` in [tokens]",
    )
    create.add_argument("--name", default="", help="a note for yourself: what it is used by")
    create.add_argument("--dry-run", action="store_true", help="only say what would be made")
    add_json_option(create)
    listing = verbs.add_parser("list", parents=options, help="list tokens")
    listing.add_argument("--user", help="only this user's")
    listing.add_argument("--all", action="store_true", help="revoked and expired ones, too")
    add_json_option(listing)
    show = verbs.add_parser("show", parents=options, help="tell all that is known of a token")
    show.add_argument("id")
    add_json_option(show)
    revoke = verbs.add_parser(
        "revoke",
        parents=options,
        help="end tokens for good",
        description="End tokens for good. Running servers refuse them after a few seconds.",
    )
    revoke.add_argument("ids", nargs="+", metavar="id")
    revoke.add_argument("--dry-run", action="store_true", help="only say what would be revoked")
    add_json_option(revoke)


def run(arguments: Namespace) -> int:
    """Do what the verb says."""
    from ..settings import load

    settings = load(arguments.config, serving=())
    match arguments.verb:
        case "create":
            return _create(arguments, settings)
        case "list":
            return _list(arguments, settings)
        case "show":
            return _show(arguments, settings)
        case _:
            return _revoke(arguments, settings)


def good_token(settings: Settings, token_id: str) -> Token:
    """Return a token that can be used now.

    Raises:
        CommandError: there is none, or it has ended.
    """
    with _Store(settings) as store:
        token = store.find(token_id)
    if token is None:
        raise CommandError(f"there is no token {token_id}; see: backupgw token list --all")
    if (state := token.state(time.time())) != "good":
        raise CommandError(f"the token {token_id} is {state}")
    return token


class _Store:
    """The store, opened for a command; its errors are the user's to mend."""

    def __init__(self, settings: Settings) -> None:
        from ..tokens import open_store

        self._store = open_store(settings)

    def __enter__(self) -> DatabaseTokens:
        return self._store

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from ..tokens import TokenStoreError

        self._store.close()
        if isinstance(error, TokenStoreError):
            raise CommandError(str(error)) from error


def _create(arguments: Namespace, settings: Settings) -> int:
    from ..authorisation import Scope
    from ..authorisation.patterns import matches
    from ..settings_tokens import TokenSettings
    from ..tokens import mint

    now = time.time()
    lifetime = settings.section("tokens", TokenSettings).lifetime
    try:
        words = [word for words in arguments.allow for word in words.split(",")]
        scope = Scope.parse(words, arguments.on)
        expires = _when(arguments.expires or f"{lifetime}d", now)
        text, token = mint(arguments.user, scope, now=now, expires=expires, name=arguments.name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for pattern in scope.on:
        place = pattern.path.partition("/")[0]
        if place != "**" and not any(matches(place, name) for name in settings.places):
            raise UsageError(
                f"{str(pattern)!r}: there is no place {place!r}; the first segment is the place, "
                f"one of {', '.join(sorted(settings.places))}, or *"
            )
    if not arguments.dry_run:
        with _Store(settings) as store:
            store.add(token)
    document = _document(token, now)
    if arguments.dry_run:
        del document["id"]
    elif arguments.json:
        document["token"] = text
    if arguments.json:
        _print_json(document)
    elif arguments.dry_run:
        _print_table(document)
    else:
        print(text)  # noqa: T201
        until = "for ever" if expires is None else f"until {_time(expires)}"
        print(  # noqa: T201
            f"token {token.id} of {token.user} is good {until}; it is not shown again",
            file=sys.stderr,
        )
    return Exit.DONE


def _list(arguments: Namespace, settings: Settings) -> int:
    now = time.time()
    with _Store(settings) as store:
        tokens = store.tokens(arguments.user)
    documents = [_document(t, now) for t in tokens if arguments.all or t.state(now) == "good"]
    if arguments.json:
        _print_json(documents)
        return Exit.DONE
    columns = ("id", "user", "name", "allow", "on", "expires", "used", "state")
    rows = [columns] + [tuple(_cell(doc[name]) for name in columns) for doc in documents]
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())  # noqa: T201
    return Exit.DONE


def _show(arguments: Namespace, settings: Settings) -> int:
    with _Store(settings) as store:
        token = store.find(arguments.id)
    if token is None:
        raise CommandError(f"there is no token {arguments.id}; see: backupgw token list --all")
    document = _document(token, time.time())
    if arguments.json:
        _print_json(document)
    else:
        _print_table(document)
    return Exit.DONE


def _revoke(arguments: Namespace, settings: Settings) -> int:
    now = time.time()
    revoked: list[dict[str, Any]] = []
    unknown: list[str] = []
    with _Store(settings) as store:
        for token_id in dict.fromkeys(arguments.ids):
            token = store.find(token_id) if arguments.dry_run else store.revoke(token_id, now)
            if token is None:
                unknown.append(token_id)
            else:
                revoked.append(_document(token, now))
    if arguments.json:
        _print_json({"revoked": revoked, "unknown": unknown, "dry_run": arguments.dry_run})
    else:
        verb = "would revoke" if arguments.dry_run else "revoked"
        for document in revoked:
            print(f"{verb} {document['id']} of {document['user']}")  # noqa: T201
    for token_id in unknown:
        print(f"backupgw: there is no token {token_id}", file=sys.stderr)  # noqa: T201
    if not unknown:
        return Exit.DONE
    return Exit.PARTLY if revoked else Exit.FAILED


def _when(text: str, now: float) -> float | None:
    if text == "never":
        return None
    if match := re.fullmatch(r"([0-9]{1,6})([mhdwy])", text):
        return now + int(match[1]) * _UNITS[match[2]]
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ValueError(
            f"{text!r} is no time to end; write 30m, 12h, 90d, 8w, 2y, 2027-01-31 or never"
        ) from None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _document(token: Token, now: float) -> dict[str, Any]:
    def told(seconds: float | None) -> str | None:
        return None if seconds is None else _time(seconds)

    return {
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "allow": token.scope.actions.word,
        "on": [str(pattern) for pattern in token.scope.on],
        "created": told(token.created),
        "expires": told(token.expires),
        "revoked": told(token.revoked),
        "used": told(token.used),
        "state": token.state(now),
    }


def _cell(value: object) -> str:
    text = " ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
    # A name with a line break would look like another token's row.
    return "".join(char if char.isprintable() else "?" for char in text)


def _print_table(document: dict[str, Any]) -> None:
    for key, value in document.items():
        print(f"{key + ':':<9} {_cell(value)}")  # noqa: T201


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201


command = Command(
    name="token", help="create, list, show and revoke tokens", configure=configure, run=run
)
