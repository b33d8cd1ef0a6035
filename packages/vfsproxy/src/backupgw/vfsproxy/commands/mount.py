"""`backupgw vfs mount-info`: how a folder is mounted."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Literal

from backupgw.runtime.command import Exit, add_json_option
from backupgw.runtime.commands.store.output import line

from . import printing
from .session import folder_of, session
from .verbs import FOLDER


def configure(parser: ArgumentParser) -> None:
    """Add the options of `mount-info`."""
    parser.add_argument("folder", metavar="FOLDER", help=FOLDER)
    parser.add_argument("--rw", action="store_true", help="for writing")
    parser.add_argument("--subpath", metavar="PATH", default="", help="a folder in it")
    add_json_option(parser)


def run(options: Namespace) -> int:
    """Tell how a folder is mounted."""
    from ..api.mount_routes import mount_document
    from ..folders.mounts import mount_of
    from ..identity import OPERATOR

    with session(options) as core:
        folder = folder_of(core, options.folder)
        mode: Literal["ro", "rw"] = "rw" if options.rw else "ro"
        mount = mount_of(core, OPERATOR, folder.id, mode, options.subpath)
    if options.json:
        printing.model(mount_document(mount))
        return Exit.DONE
    line(f"target     {mount.target}{' (read-only)' if mount.read_only else ''}")
    line(f"limits     {mount.quota}")
    for offer in mount.offers:
        line(f"{offer.method:9}  {offer.source}")
    return Exit.DONE
