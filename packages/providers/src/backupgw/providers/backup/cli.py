"""`backupgw backup`: backs up to providers, shows, restores, verifies and prunes backups."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from backupgw.runtime.command import Command, add_json_option, global_options


def configure(parser: ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)

    def verb(name: str, text: str, **more: Any) -> ArgumentParser:
        added: ArgumentParser = verbs.add_parser(
            name, parents=[global_options()], help=text, description=more.pop("about", None), **more
        )
        return added

    _configure_create(verb("create", "back up sets of the settings, or paths"))
    _configure_list(verb("list", "show the backups that providers hold"))
    _configure_restore(verb("restore", "bring a backup back, whole or in part"))
    _configure_verify(verb("verify", "see that what is stored can be read"))
    _configure_prune(verb("prune", "remove what no rule keeps"))
    _configure_status(verb("status", "show how the last runs went"))
    _configure_schedule(verb("schedule", "back up by the calendar"))
    _configure_keys(verb("keys", "show and bring the keys of the backups"))


def _provider(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-p",
        "--provider",
        action="append",
        default=[],
        metavar="NAME",
        help="a provider; can be given several times (default: the set's, else all enabled ones)",
    )


def _set(parser: ArgumentParser) -> None:
    parser.add_argument("--set", metavar="NAME", help="of this set")


def _all_hosts(parser: ArgumentParser) -> None:
    parser.add_argument("--all-hosts", action="store_true", help="of other machines, too")


def _configure_create(create: ArgumentParser) -> None:
    create.description = (
        "Back up every [backup.sets.NAME] of the settings, or those given, or paths. Exit status "
        "3: something, but not all, was backed up."
    )
    create.add_argument(
        "--set", action="append", default=[], metavar="NAME", help="a set; several times for more"
    )
    create.add_argument(
        "-i", "--include", nargs="+", action="extend", default=[], metavar="PATH",
        help="back up these instead; --set gives them a name, else it is files",
    )  # fmt: skip
    create.add_argument(
        "-e", "--exclude", action="append", default=[], metavar="PATTERN",
        help="with -i: leave these out, *.tmp or /home/*/.cache",
    )  # fmt: skip
    create.add_argument("--one-file-system", action="store_true", help="with -i")
    create.add_argument("--format", choices=("restic", "archive"), help="with -i: default restic")
    create.add_argument("--compression", choices=("auto", "off", "max"), help="with -i")
    create.add_argument(
        "--no-encrypt", action="store_true", help="with -i: leave an archive open to all"
    )
    create.add_argument(
        "--prune", action="store_true", help="afterwards remove what the set's keep does not keep"
    )
    _provider(create)
    add_json_option(create)


def _configure_list(listed: ArgumentParser) -> None:
    _provider(listed)
    _set(listed)
    _all_hosts(listed)
    add_json_option(listed)


def _configure_restore(restore: ArgumentParser) -> None:
    restore.description = (
        "Restore a backup with its paths below a folder, or where it came from. Exit status 3: "
        "something is not as it was, and was named."
    )
    restore.add_argument(
        "id", nargs="?", default="latest", metavar="ID", help="as list shows it (default: latest)"
    )
    restore.add_argument("-t", "--target", metavar="DIR", help="the folder")
    restore.add_argument(
        "--in-place", action="store_true", help="where it came from, over what is there"
    )
    restore.add_argument(
        "-i", "--include", action="append", default=[], metavar="PATTERN",
        help="only what matches, *.jpg or /home/ann/docs",
    )  # fmt: skip
    restore.add_argument(
        "--overwrite",
        choices=("always", "if-newer", "never"),
        default="always",
        help="what becomes of files that are there; default %(default)s",
    )
    restore.add_argument("--host", metavar="NAME", help="of this machine")
    restore.add_argument("--dry-run", action="store_true", help="only count, change nothing")
    _provider(restore)
    _set(restore)
    _all_hosts(restore)
    add_json_option(restore)


def _configure_verify(verify: ArgumentParser) -> None:
    verify.description = (
        "Check the structure of each repository, and read and decrypt a sample of its data; of "
        "archives the last of each set and another one."
    )
    verify.add_argument("--full", action="store_true", help="read everything")
    verify.add_argument(
        "--sample", type=_sample, default="5%", metavar="PART", help="default %(default)s"
    )
    _provider(verify)
    _all_hosts(verify)
    add_json_option(verify)


def _sample(text: str) -> str:
    number = text.removesuffix("%")
    try:
        good = text.endswith("%") and 0 < float(number) <= 100
    except ValueError:
        good = False
    if not good:
        raise ArgumentTypeError(f"{text!r} is no part; write 5% (of at most 100%)")
    return f"{float(number):g}%"


def _configure_prune(prune: ArgumentParser) -> None:
    prune.description = (
        "Remove the backups of each set that no rule of its keep, or of these flags, keeps. The "
        "rules count as restic's do."
    )
    for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly"):
        prune.add_argument(
            f"--keep-{name}", type=_keep, metavar="N", help="so many; all for every one"
        )
    prune.add_argument("--dry-run", action="store_true", help="only tell, change nothing")
    _provider(prune)
    _set(prune)
    add_json_option(prune)


def _keep(text: str) -> int:
    if text in ("all", "unlimited"):
        return -1
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"{text!r} is neither a number nor all")
    return int(text)


def _configure_status(status: ArgumentParser) -> None:
    _set(status)
    status.add_argument("--prometheus", action="store_true", help="in Prometheus' text format")
    add_json_option(status)


def _configure_schedule(schedule: ArgumentParser) -> None:
    verbs = schedule.add_subparsers(metavar="VERB", dest="schedule_verb", required=True)
    add = verbs.add_parser(
        "add", parents=[global_options()], help="back a set up by the calendar, or at other times"
    )
    add.add_argument("set", metavar="SET")
    add.add_argument(
        "--at", required=True, metavar="WHEN",
        help="02:30, Sun 03:00, hourly, daily, weekly, monthly; whatever systemd-analyze calendar "
        "knows; with --cron five fields",
    )  # fmt: skip
    add.add_argument(
        "--random-delay", type=int, default=300, metavar="SECONDS", help="default %(default)s"
    )
    remove = verbs.add_parser("remove", parents=[global_options()], help="no longer")
    remove.add_argument("set", metavar="SET")
    listed = verbs.add_parser("list", parents=[global_options()], help="show what is scheduled")
    for parser in (add, remove, listed):
        parser.add_argument("--cron", action="store_true", help="by cron instead of systemd")
        parser.add_argument(
            "--user", action="store_true", help="this user's own timers, for root too"
        )
        parser.add_argument(
            "--folder", metavar="DIR", help="write the units there and tell systemd nothing"
        )
        add_json_option(parser)


def _configure_keys(keys: ArgumentParser) -> None:
    verbs = keys.add_subparsers(metavar="VERB", dest="keys_verb", required=True)
    show = verbs.add_parser(
        "show", parents=[global_options()], help="print the sheet to keep away from this machine"
    )
    add_json_option(show)
    take = verbs.add_parser("import", parents=[global_options()], help="take the keys of a sheet")
    take.add_argument("file", metavar="FILE", help="- is standard input")
    take.add_argument("--replace", action="store_true", help="put others in the place of these")
    verbs.add_parser("make", parents=[global_options()], help="make those that are missing")


def run(arguments: Namespace) -> int:
    """Do what the verb says; return the exit status."""
    from backupgw.runtime.restic import StopSignal

    from ..command.session import Session
    from .site import Site

    with Session(arguments) as session, StopSignal() as stop:
        try:
            return _verb(arguments, Site(arguments, session), stop)
        except BaseException:
            stop.set()
            raise


def _verb(arguments: Namespace, site: Any, stop: Any) -> int:
    """Only what a verb needs is imported."""
    match arguments.verb:
        case "status":
            from .list_command import status

            return status(arguments, site)
        case "schedule":
            from .schedule_command import schedule

            return schedule(arguments, site)
        case "keys":
            from .keys_command import keys

            return keys(arguments, site)
    from .report import Reporter

    reporter = Reporter(json=arguments.json)
    match arguments.verb:
        case "create":
            from .create_command import create

            return create(arguments, site, reporter, stop)
        case "list":
            from .list_command import list_backups

            return list_backups(arguments, site, reporter, stop)
        case "restore":
            from .restore_command import restore

            return restore(arguments, site, reporter, stop)
        case "verify":
            from .verify_command import verify

            return verify(arguments, site, reporter, stop)
        case _:
            from .prune_command import prune

            return prune(arguments, site, reporter, stop)


command = Command(
    name="backup",
    help="back up to providers; list, restore, verify and prune backups, by the calendar too",
    configure=configure,
    run=run,
)
