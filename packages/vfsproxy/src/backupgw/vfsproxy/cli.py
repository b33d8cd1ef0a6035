"""`backupgw vfs`: serve virtual folders, and look after them."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from typing import Any, Protocol

from backupgw.runtime.command import Command, global_options

from .commands import (
    file,
    folder,
    group,
    mount,
    quota,
    share,
    snapshot,
    task,
    token,
    user,
    volume,
)


class _Subject(Protocol):
    """A module of `commands`."""

    def configure(self, parser: ArgumentParser) -> None:
        """Add its verbs, or its options."""

    def run(self, options: Namespace) -> int:
        """Do what was asked for; return the exit status."""


_SUBJECTS: dict[str, tuple[str, _Subject]] = {
    "folder": ("make, list, limit, delete and restore folders", folder),
    "file": ("list, fetch, store, move and delete files in folders", file),
    "share": ("say with whom folders are shared", share),
    "mount-info": ("tell how a folder is mounted", mount),
    "quota": ("limit what users and groups may hold", quota),
    "snapshot": ("keep what folders hold, and bring it back", snapshot),
    "task": ("follow and call off what takes long", task),
    "token": ("make API keys for users", token),
    "user": ("make users known, and administrators", user),
    "group": ("make groups, and say who is in them", group),
    "volume": ("list, count and look through volumes", volume),
}


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for name, (text, subject) in _SUBJECTS.items():
        parents = [global_options()] if name == "mount-info" else []
        subject.configure(verbs.add_parser(name, parents=parents, help=text))
    serve = verbs.add_parser(
        "serve",
        parents=[global_options()],
        help="serve virtual folders to clients, and to a manager that has a token",
        description="Serve the API for clients, and the one for managers where [vfs_manager] has a "
        "token. Every flag can also be set in the section [vfs] of the settings file; the flag "
        "wins.",
    )
    add = serve.add_argument
    add(
        "--listen",
        metavar="ADDR",
        action="append",
        help="HOST:PORT, :PORT for every address, or unix:PATH, of the API for clients (default: "
        "127.0.0.1:6021); can be given several times",
    )
    add(
        "--manager-listen",
        metavar="ADDR",
        action="append",
        help="the same of the API for managers (default: 127.0.0.1:6022)",
    )
    add("--path", metavar="DIR", help="a folder of this machine as the only volume")
    add("--workers", metavar="N", type=int, help="processes of the API for clients (default: 1)")
    add("--access-log", metavar="FILE", help="access log in Apache's format; - is standard output")
    add("--metrics", action="store_const", const=True, help="answer /metrics")


def run(options: Namespace) -> int:
    """Do what the subcommand says; return the exit status."""
    if options.verb in _SUBJECTS:
        return _SUBJECTS[options.verb][1].run(options)
    return _serve(options)


def _serve(options: Namespace) -> int:
    from backupgw.runtime.commands.serve import serve
    from backupgw.runtime.settings import load

    from .settings import ManagerSettings

    wanted = overrides(options)
    settings = load(options.config, wanted, serving=set())
    services = ["vfs"]
    if settings.section("vfs_manager", ManagerSettings).token is not None:
        services.append("vfs_manager")
    return serve(options, wanted, only=services)


def overrides(options: Namespace) -> dict[str, Any]:
    """Return what the flags set, as settings by their dotted keys."""
    from backupgw.runtime.settings_sources import Flag

    found: dict[str, Any] = {}
    if options.path is not None:
        found["vfs.volumes.default.type"] = Flag("--path", "fs")
        found["vfs.volumes.default.path"] = Flag("--path", os.path.abspath(options.path))
    if options.manager_listen is not None:
        found["vfs_manager.listen"] = Flag("--manager-listen", options.manager_listen)
    for name in ("listen", "workers", "access_log", "metrics"):
        value = getattr(options, name)
        if value is not None:
            found[f"vfs.{name}"] = Flag(f"--{name.replace('_', '-')}", value)
    if options.metrics:
        found["vfs_manager.metrics"] = Flag("--metrics", True)
    return found


command = Command(
    name="vfs", help="virtual folders with exact quotas", configure=configure, run=run
)
