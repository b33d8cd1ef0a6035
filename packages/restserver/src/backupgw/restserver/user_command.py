"""`backupgw rest user`: who may log in. Passwords come from a prompt or from standard input."""

from __future__ import annotations

import getpass
import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from backupgw.runtime.command import CommandError, Exit, UsageError, add_json_option, global_options

if TYPE_CHECKING:
    from .passwords import PasswordFile

_COSTS = range(4, 19)


def configure(parser: ArgumentParser) -> None:
    """Add the four verbs."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="deed", required=True)
    for name, text in (
        ("add", "add a user"),
        ("passwd", "change a user's password"),
        ("remove", "remove users"),
        ("list", "list users"),
    ):
        verb = verbs.add_parser(name, parents=[global_options()], help=text)
        verb.add_argument(
            "--htpasswd-file",
            metavar="FILE",
            type=Path,
            help="default: htpasswd_file in [rest], else .htpasswd in the place's folder",
        )
        verb.add_argument("--path", metavar="DIR", help="folder of the repositories")
        if name == "list":
            add_json_option(verb)
            continue
        verb.add_argument("--dry-run", action="store_true", help="only say what would be done")
        if name == "remove":
            verb.add_argument("users", nargs="+", metavar="user")
        else:
            verb.add_argument("user")
            verb.description = (
                "The password is asked for twice, or is the first line of standard input where "
                "that is no terminal. Running servers know it at once."
            )
            verb.add_argument(
                "--cost", type=int, default=10, metavar="N", help="of bcrypt, 4 to 18 (default: 10)"
            )


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from .passwords import PasswordFile

    file = PasswordFile(_file(options))
    match options.deed:
        case "list":
            return _list(file.read(), as_json=options.json)
        case "remove":
            return _remove(file, options)
        case _:
            return _set(file, options)


def _file(options: Namespace) -> Path:
    from backupgw.runtime.settings import load

    from .cli import place_overrides
    from .identification import HTPASSWD, place_folder
    from .settings import RestSettings

    if options.htpasswd_file is not None:
        return Path(options.htpasswd_file)
    settings = load(options.config, place_overrides(options.path))
    configured = settings.section("rest", RestSettings).htpasswd_file
    if configured is not None:
        return configured
    folder = place_folder(settings)
    if folder is None:
        raise UsageError("the repositories are in no folder here; name the file: --htpasswd-file")
    return folder / HTPASSWD


def _set(file: PasswordFile, options: Namespace) -> int:
    from .passwords import check_user, hash_password

    user, new = options.user, options.deed == "add"
    if options.cost not in _COSTS:
        raise UsageError(f"--cost must be {_COSTS[0]} to {_COSTS[-1]}")
    check_user(user)

    def refuse(there: bool) -> None:
        if there and new:
            raise CommandError(f"{user} is in {file.path} already; see: backupgw rest user passwd")
        if not there and not new:
            raise CommandError(f"{user} is not in {file.path}; see: backupgw rest user add")

    # Before anybody types a password, and once more when nobody else can change the file.
    with file.changing() as lines:
        refuse(user in lines)
    if options.dry_run:
        _say(f"would {'add' if new else 'change the password of'} {user} in {file.path}")
        return Exit.DONE
    digest = hash_password(_password(user), options.cost)
    with file.changing() as lines:
        refuse(user in lines)
        lines.put(user, digest)
    _say(f"{'added' if new else 'changed the password of'} {user} in {file.path}")
    return _warn(file)


def _remove(file: PasswordFile, options: Namespace) -> int:
    with file.changing() as lines:
        known = [user for user in dict.fromkeys(options.users) if user in lines]
        if not options.dry_run:
            for user in known:
                lines.remove(user)
    unknown = [user for user in dict.fromkeys(options.users) if user not in known]
    for user in known:
        _say(f"{'would remove' if options.dry_run else 'removed'} {user} from {file.path}")
    for user in unknown:
        _complain(f"{user} is not in {file.path}")
    if unknown:
        return Exit.PARTLY if known else Exit.FAILED
    return Exit.DONE if options.dry_run else _warn(file)


def _warn(file: PasswordFile) -> int:
    """Say what a server would say of the file."""
    from backupgw.runtime.auth.htpasswd import HtpasswdError

    try:
        if not file.read():
            _complain(f"{file.path} holds no user now: no password lets anybody in")
    except HtpasswdError as error:
        _complain(f"other lines are wrong, and servers refuse the file:\n{error}")
        return Exit.PARTLY
    return Exit.DONE


def _list(users: dict[str, str], *, as_json: bool) -> int:
    found = [{"user": user, "hash": _kind(digest)} for user, digest in sorted(users.items())]
    if as_json:
        _say(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for each in found:
            _say(f"{each['user']:<24} {each['hash']}".rstrip())
    return Exit.DONE


def _kind(digest: str) -> str:
    return "SHA-1" if digest.startswith("{SHA}") else f"bcrypt, cost {int(digest[4:6])}"


def _password(user: str) -> str:
    if not sys.stdin.isatty():
        # Bytes as they come: a password need not be text in this terminal's encoding.
        line = sys.stdin.buffer.readline(4096)
        return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
    password = getpass.getpass(f"password of {user}: ")
    if getpass.getpass("the same again: ") != password:
        raise CommandError("the two are not the same; nothing was changed")
    return password


def _say(text: str) -> None:
    print(text)  # noqa: T201


def _complain(text: str) -> None:
    print(f"backupgw: {text}", file=sys.stderr)  # noqa: T201
