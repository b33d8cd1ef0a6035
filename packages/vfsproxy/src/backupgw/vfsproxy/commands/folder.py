"""`backupgw vfs folder`: folders, whole."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from backupgw.runtime.command import Exit, UsageError
from backupgw.runtime.commands.store.output import line, time_text

from . import printing
from .session import folder_of, holder_of, lifetime, limits_of, session
from .verbs import FOLDER, add_verbs, add_wait

if TYPE_CHECKING:
    from ..core import Core
    from ..folders.records import Folder, Status


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `folder`."""
    verbs = add_verbs(
        parser,
        {
            "list": "list folders",
            "show": "show a folder and what it holds",
            "create": "make a folder",
            "rename": "give a folder another name",
            "limit": "limit what a folder may hold",
            "delete": "delete a folder; it can be restored for a while",
            "restore": "bring a deleted folder back",
            "purge": "remove a deleted folder for good",
            "clone": "make a folder with the same files",
            "transfer": "give a folder to another owner",
        },
    )
    for name, verb in verbs.items():
        if name not in ("list", "create"):
            verb.add_argument("folder", metavar="FOLDER", help=FOLDER)
        if name in ("create", "rename", "clone"):
            verb.add_argument("name", metavar="NAME")
        if name in ("purge", "clone", "transfer"):
            add_wait(verb)
        if name in ("create", "limit"):
            _limits(verb)
    listing, create, clone = verbs["list"], verbs["create"], verbs["clone"]
    listing.add_argument("--owner", metavar="OWNER", help="USER or group:GROUP")
    listing.add_argument("--volume", metavar="NAME")
    listing.add_argument("--status", metavar="STATUS", action="append", default=[])
    create.add_argument(
        "--owner", metavar="OWNER", help="USER or group:GROUP; default as in NAME, OWNER/NAME"
    )
    create.add_argument("--volume", metavar="NAME")
    create.add_argument("--lifetime", metavar="TIME", help="until it is deleted, such as 30d")
    clone.add_argument("--owner", metavar="OWNER", help="default the source's")
    clone.add_argument("--volume", metavar="NAME", help="default the source's")
    verbs["transfer"].add_argument("owner", metavar="OWNER", help="USER or group:GROUP")


def _limits(parser: ArgumentParser) -> None:
    parser.add_argument("--bytes", metavar="SIZE", help='such as "10 GiB"; none is without limit')
    parser.add_argument("--files", metavar="N", help="none is without limit")


def run(options: Namespace) -> int:
    """Do what the verb says."""
    from ..folders.lifecycle import Lifecycle, Wanted
    from ..folders.records import Limits, Status
    from ..identity import OPERATOR
    from ..tasks.cloning import submit_clone
    from ..tasks.ending import submit_purge
    from ..tasks.transfer import submit_transfer

    with session(options) as core:
        lifecycle = Lifecycle(core)
        match options.action:
            case "list":
                try:
                    statuses = [Status(status) for status in options.status]
                except ValueError as error:
                    known = ", ".join(Status)
                    raise UsageError(f"--status: {error}; there are {known}") from error
                return _list(core, options, statuses)
            case "create":
                owner, name = options.owner, options.name
                if owner is None:
                    owner, slash, name = name.partition("/")
                    if not slash:
                        raise UsageError(f"say whose it is: OWNER/{options.name}, or --owner OWNER")
                holder = holder_of(owner)
                limits = None
                if options.bytes is not None or options.files is not None:
                    limits = limits_of(options, Limits())
                folder = lifecycle.create(
                    OPERATOR,
                    Wanted(
                        name=name,
                        holder=holder,
                        volume=options.volume,
                        limits=limits,
                        lifetime=lifetime(options.lifetime),
                    ),
                )
                return _shown(core, options, folder)
        gone = options.action in ("restore", "purge")
        folder = folder_of(core, options.folder, deleted=gone)
        match options.action:
            case "rename":
                folder = lifecycle.rename(OPERATOR, folder.id, options.name)
            case "limit":
                limits = limits_of(options, folder.limits)
                folder = lifecycle.set_limits(OPERATOR, folder.id, limits)
            case "delete":
                folder = lifecycle.delete(OPERATOR, folder.id)
            case "restore":
                folder = lifecycle.restore(OPERATOR, folder.id)
            case "purge":
                return printing.given(core, options, submit_purge(core, OPERATOR, folder.id))
            case "clone":
                wanted = Wanted(
                    name=options.name,
                    holder=holder_of(options.owner) if options.owner else folder.holder,
                    volume=options.volume or folder.volume,
                )
                clone, job = submit_clone(core, OPERATOR, folder.id, wanted)
                printing.say(f"the clone is {clone.id}")
                return printing.given(core, options, job)
            case "transfer":
                job = submit_transfer(core, OPERATOR, folder.id, holder_of(options.owner))
                return printing.given(core, options, job)
        return _shown(core, options, folder)


def _list(core: Core, options: Namespace, statuses: list[Status]) -> int:
    from ..api.folder_documents import folder_document
    from ..folders.lifecycle import Lifecycle
    from ..identity import OPERATOR

    found = []
    after = ""
    while True:
        page = Lifecycle(core).listed(
            OPERATOR,
            everybody=True,
            after=after,
            limit=1000,
            holder=holder_of(options.owner) if options.owner else None,
            volume=options.volume,
            statuses=statuses,
        )
        found += page
        if len(page) < 1000:
            break
        after = page[-1][0].id
    if options.json:
        printing.models([folder_document(core, folder, permission) for folder, permission in found])
        return Exit.DONE
    rows = [
        [
            folder.id,
            folder.holder,
            folder.name,
            folder.volume,
            folder.status,
            *printing.usage_cells(core.accounts.usage(folder.scope)),
        ]
        for folder, _ in found
    ]
    titles = ("id", "owner", "name", "volume", "status", "bytes", "of", "files", "of")
    printing.table(titles, rows)
    return Exit.DONE


def _shown(core: Core, options: Namespace, folder: Folder) -> int:
    from ..api.folder_documents import folder_document
    from ..folders.records import Permission

    document = folder_document(core, folder, Permission.OWNER, quota=True)
    if options.json:
        printing.model(document)
        return Exit.DONE
    usage = core.accounts.usage(folder.scope)
    used, most, files, most_files = printing.usage_cells(usage)
    for name, value in (
        ("id", folder.id),
        ("name", folder.name),
        ("owner", folder.holder),
        ("volume", f"{folder.volume}, {folder.path}"),
        ("status", folder.status + (f" ({folder.reason})" if folder.reason else "")),
        ("holds", f"{used} of {most} in {files} of {most_files} files"),
        ("created", f"{time_text(folder.created)} by {folder.creator}"),
        ("expires", time_text(folder.expires or 0)),
        ("deleted", time_text(folder.deleted or 0)),
    ):
        line(f"{name:8}  {value}")
    return Exit.DONE
