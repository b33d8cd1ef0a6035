"""`backupgw vfs token`, `user`, `group`, `quota`, `snapshot`, `task` and `volume`."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit, UsageError, add_json_option, global_options
from backupgw.runtime.commands.store.output import json_document, line, time_text

from . import printing
from .folder import FOLDER
from .session import folder_of, holder_of, lifetime, limits_of, session


def _verbs(parser: ArgumentParser, verbs: dict[str, str]) -> dict[str, ArgumentParser]:
    parsers = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    found = {}
    for name, text in verbs.items():
        found[name] = parsers.add_parser(name, parents=[global_options()], help=text)
        add_json_option(found[name])
    return found


# -- tokens


def configure_token(parser: ArgumentParser) -> None:
    """Add the verbs of `token`."""
    create = _verbs(parser, {"create": "make an API key of a user, and print it once"})["create"]
    create.add_argument("user", metavar="USER")
    create.add_argument(
        "--allow",
        metavar="WHAT",
        default="admin",
        help="what it is for: read-only, append, full, admin (default: whatever its user may do)",
    )
    create.add_argument(
        "--folder", metavar="FOLDER", action="append", help=f"for this one only: {FOLDER}"
    )
    create.add_argument("--lifetime", metavar="TIME", help="such as 30d (default: see [tokens])")
    create.add_argument("--name", metavar="TEXT", default="", help="what it is for, in lists")


def run_token(options: Namespace) -> int:
    """Make a key; `backupgw token list` and `revoke` know it."""
    from backupgw.runtime.authorisation import Scope
    from backupgw.runtime.settings_tokens import TokenSettings
    from backupgw.runtime.tokens import mint, open_store

    holder = holder_of(options.user)
    if holder.kind != "user":
        raise UsageError("a key belongs to a user")
    with session(options) as core:
        targets = ["folder:**"]
        if options.folder:
            folders = [folder_of(core, text) for text in options.folder]
            targets = [f"folder:{folder.volume}/{folder.id}" for folder in folders]
        days = core.settings.section("tokens", TokenSettings).lifetime
        now = time.time()
        expires = now + (lifetime(options.lifetime) or days * 86_400)
        try:
            scope = Scope.parse(options.allow.split(","), targets)
            text, token = mint(holder.name, scope, now=now, expires=expires, name=options.name)
        except ValueError as error:
            raise UsageError(str(error)) from error
        store = open_store(core.settings)
        try:
            store.add(token)
        finally:
            store.close()
    if options.json:
        json_document({"token": text, "id": token.id, "user": holder.name, "on": targets})
    else:
        line(text)
        printing.say(f"it is good until {time_text(expires)}; backupgw token revoke {token.id}")
    return Exit.DONE


# -- users and groups


def configure_user(parser: ArgumentParser) -> None:
    """Add the verbs of `user`."""
    verbs = _verbs(
        parser,
        {
            "list": "list the users that are known",
            "set": "make a user known, an administrator, or shut them out",
            "remove": "forget a user who has no folders",
        },
    )
    for name in ("set", "remove"):
        verbs[name].add_argument("user", metavar="USER")
    for name, text in (("admin", "may do everything"), ("disabled", "may do nothing")):
        verbs["set"].add_argument(f"--{name}", choices=["yes", "no"], help=text)


def run_user(options: Namespace) -> int:
    """Do what the verb says."""
    from ..folders import people
    from ..folders.administration import Administration
    from ..identity import OPERATOR

    with session(options) as core:
        administration = Administration(core)
        if options.action == "remove":
            administration.remove(OPERATOR, holder_of(options.user))
            return Exit.DONE
        if options.action == "set":
            administration.change_user(
                OPERATOR,
                holder_of(options.user).name,
                admin=None if options.admin is None else options.admin == "yes",
                disabled=None if options.disabled is None else options.disabled == "yes",
            )
        with core.database.read() as connection:
            found = people.users(connection, "", 1_000_000)
    if options.json:
        json_document(
            [{"name": user.name, "admin": user.admin, "disabled": user.disabled} for user in found]
        )
    else:
        rows = [
            (user.name, "yes" if user.admin else "", "yes" if user.disabled else "")
            for user in found
        ]
        printing.table(("user", "admin", "disabled"), rows)
    return Exit.DONE


def configure_group(parser: ArgumentParser) -> None:
    """Add the verbs of `group`."""
    verbs = _verbs(
        parser,
        {
            "list": "list groups",
            "show": "show a group's members",
            "create": "make a group",
            "remove": "forget a group that has no folders",
            "add": "let a user into a group",
            "drop": "take a user out of a group",
        },
    )
    for name, verb in verbs.items():
        if name != "list":
            verb.add_argument("group", metavar="GROUP")
        if name in ("add", "drop"):
            verb.add_argument("user", metavar="USER")
    verbs["add"].add_argument("--admin", action="store_true", help="as its administrator")


def run_group(options: Namespace) -> int:
    """Do what the verb says."""
    from ..folders.administration import Administration
    from ..identity import OPERATOR

    with session(options) as core:
        administration = Administration(core)
        if options.action == "list":
            found = administration.groups(OPERATOR, "", 1_000_000)
            if options.json:
                json_document([group.name for group in found])
            else:
                printing.table(
                    ("group", "since"), [(group.name, time_text(group.created)) for group in found]
                )
            return Exit.DONE
        holder = holder_of(f"group:{options.group}")
        match options.action:
            case "create":
                administration.make_group(OPERATOR, holder.name)
            case "remove":
                administration.remove(OPERATOR, holder)
                return Exit.DONE
            case "add":
                user = holder_of(options.user).name
                administration.set_member(OPERATOR, holder.name, user, admin=options.admin)
            case "drop":
                user = holder_of(options.user).name
                administration.remove_member(OPERATOR, holder.name, user)
        group = administration.group(OPERATOR, holder.name)
    if options.json:
        json_document({"name": group.name, "members": group.members})
    else:
        rows = [(name, "yes" if admin else "") for name, admin in group.members.items()]
        printing.table(("member", "admin"), rows)
    return Exit.DONE


# -- quotas


def configure_quota(parser: ArgumentParser) -> None:
    """Add the verbs of `quota`."""
    verbs = _verbs(
        parser,
        {
            "show": "show what a user or a group holds, and may hold",
            "set": "limit what a user or a group may hold",
            "unset": "let the usual limits hold",
        },
    )
    for verb in verbs.values():
        verb.add_argument("holder", metavar="WHO", help="USER or group:GROUP")
    verbs["set"].add_argument("--bytes", metavar="SIZE", help="none is without limit")
    verbs["set"].add_argument("--files", metavar="N", help="none is without limit")


def run_quota(options: Namespace) -> int:
    """Do what the verb says."""
    from ..api.folder_documents import quota_document
    from ..folders.administration import Administration
    from ..folders.records import Limits
    from ..identity import OPERATOR

    with session(options) as core:
        administration, holder = Administration(core), holder_of(options.holder)
        account = administration.account(OPERATOR, holder)
        if options.action == "set":
            was = account.usage.limit
            limits = limits_of(options, Limits(was.hard_bytes, was.hard_objects))
            account = administration.set_limits(OPERATOR, holder, limits)
        elif options.action == "unset":
            account = administration.set_limits(OPERATOR, holder, None)
    if options.json:
        printing.model(quota_document(account.usage))
    else:
        row = [holder, *printing.usage_cells(account.usage), "own" if account.own else "usual"]
        printing.table(("who", "bytes", "of", "files", "of", "limits"), [row])
    return Exit.DONE


# -- snapshots


def configure_snapshot(parser: ArgumentParser) -> None:
    """Add the verbs of `snapshot`."""
    verbs = _verbs(
        parser,
        {
            "list": "list a folder's snapshots",
            "create": "keep what a folder holds now",
            "restore": "bring a folder back to what it held; what came later is lost",
            "delete": "remove a snapshot",
        },
    )
    for name, verb in verbs.items():
        verb.add_argument("folder", metavar="FOLDER", help=FOLDER)
        if name != "list":
            verb.add_argument("snapshot", metavar="NAME")
            verb.add_argument("--wait", action="store_true", help="until it is done")
    verbs["create"].add_argument("--lifetime", metavar="TIME", help="until it is removed: 30d")


def run_snapshot(options: Namespace) -> int:
    """Do what the verb says."""
    from ..identity import OPERATOR
    from ..tasks import snapshots

    with session(options) as core:
        folder = folder_of(core, options.folder)
        if options.action == "create":
            _, job = snapshots.submit_create(
                core, OPERATOR, folder.id, options.snapshot, lifetime(options.lifetime)
            )
            return printing.given(core, options, job)
        found = snapshots.listed(core, OPERATOR, folder.id, "", 1_000_000)
        if options.action != "list":
            mine = [each for each in found if options.snapshot in (each.id, each.name)]
            if not mine:
                raise UsageError(f"the folder has no snapshot {options.snapshot!r}")
            submit = (
                snapshots.submit_restore if options.action == "restore" else snapshots.submit_delete
            )
            return printing.given(core, options, submit(core, OPERATOR, folder.id, mine[0].id))
    if options.json:
        json_document(
            [
                {"id": each.id, "name": each.name, "status": each.status, "bytes": each.bytes}
                for each in found
            ]
        )
    else:
        rows = [
            (each.name, each.status, each.method or "-", each.bytes, time_text(each.created))
            for each in found
        ]
        printing.table(("name", "status", "method", "bytes", "created"), rows)
    return Exit.DONE


# -- tasks and volumes


def configure_task(parser: ArgumentParser) -> None:
    """Add the verbs of `task`."""
    verbs = _verbs(
        parser,
        {
            "list": "list the latest tasks",
            "show": "show a task",
            "wait": "follow a task to its end",
            "cancel": "call a task off",
        },
    )
    for name, verb in verbs.items():
        if name != "list":
            verb.add_argument("task", metavar="TASK")
    verbs["list"].add_argument("--folder", metavar="FOLDER", help=FOLDER)


def run_task(options: Namespace) -> int:
    """Do what the verb says."""
    from backupgw.runtime.command import CommandError
    from backupgw.runtime.jobs import UnknownJob

    from ..api.task_documents import task_document
    from ..identity import OPERATOR

    with session(options) as core:
        try:
            if options.action == "list":
                folder = folder_of(core, options.folder).id if options.folder else None
                found = core.tasks.listed(OPERATOR, folder=folder, states=(), limit=1000)
            elif options.action == "wait":
                core.tasks.find(OPERATOR, options.task)
                return printing.wait(core, options, options.task)
            elif options.action == "cancel":
                found = [core.tasks.cancel(OPERATOR, options.task)]
            else:
                found = [core.tasks.find(OPERATOR, options.task)]
        except UnknownJob as error:
            raise CommandError(
                f"there is no task {options.task}; see: backupgw vfs task list"
            ) from error
    if options.json:
        printing.models([task_document(job) for job in found])
    else:
        rows = [
            (
                job.id,
                job.kind.removeprefix("vfs."),
                job.state,
                job.arguments.get("folder") or job.arguments.get("volume") or "-",
                time_text(job.created),
                job.error or "",
            )
            for job in found
        ]
        printing.table(("id", "kind", "state", "of", "created", "why"), rows)
    return Exit.DONE


def configure_volume(parser: ArgumentParser) -> None:
    """Add the verbs of `volume`."""
    verbs = _verbs(
        parser,
        {
            "list": "list volumes",
            "scan": "count a volume and correct the accounts",
            "orphans": "look for folders that nobody knows",
        },
    )
    for name in ("scan", "orphans"):
        verbs[name].add_argument("volume", metavar="NAME")
        verbs[name].add_argument("--wait", action="store_true", help="until it is done")
    verbs["orphans"].add_argument("--remove", action="store_true", help="remove them, for good")


def run_volume(options: Namespace) -> int:
    """Do what the verb says."""
    from ..identity import OPERATOR
    from ..tasks.scanning import submit_orphans, submit_scan

    with session(options) as core:
        match options.action:
            case "scan":
                job = submit_scan(core, OPERATOR, options.volume)
                return printing.given(core, options, job)
            case "orphans":
                job = submit_orphans(core, OPERATOR, options.volume, remove=options.remove)
                return printing.given(core, options, job)
        volumes = [opened.volume for opened in core.volumes.values()]
        if options.json:
            json_document(
                [
                    {"name": each.name, "backend": each.type, "capabilities": each.capabilities}
                    for each in volumes
                ]
            )
        else:
            printing.table(
                ("volume", "backend", "can"),
                [(each.name, each.type, ", ".join(each.capabilities)) for each in volumes],
            )
    return Exit.DONE
