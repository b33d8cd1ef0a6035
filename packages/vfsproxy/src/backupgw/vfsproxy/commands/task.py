"""`backupgw vfs task`: what takes long."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backupgw.runtime.command import Exit
from backupgw.runtime.commands.store.output import time_text

from . import printing
from .session import folder_of, session
from .verbs import FOLDER, add_verbs


def configure(parser: ArgumentParser) -> None:
    """Add the verbs of `task`."""
    verbs = add_verbs(
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


def run(options: Namespace) -> int:
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
