"""`backupgw vfs`: serve virtual folders, and look after them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from backupgw.runtime.command import Command, global_options


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
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
    import os

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
