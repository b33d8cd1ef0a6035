"""`backupgw backup keys`: the keys of the backups, to be kept away from the machine."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from backupgw.runtime.command import CommandError, Exit
from backupgw.runtime.commands.store.output import json_document, line, remark

from .restic_target import REPOSITORY
from .site import Site


def keys(arguments: Namespace, site: Site) -> int:
    """Do what the verb says."""
    match arguments.keys_verb:
        case "show":
            return _show(arguments, site)
        case "import":
            text = sys.stdin.read() if arguments.file == "-" else _read(arguments.file)
            for path in site.keys.take(text, replace=arguments.replace):
                line(f"kept in {path}")
            return Exit.DONE
        case _:
            site.keys.restic_password(make=True)
            site.keys.archive_key(make=True)
            for made in site.keys.made:
                line(f"made {made}")
            remark("`backupgw backup keys show` prints them, to be kept away from this machine")
            return Exit.DONE


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error


def _show(arguments: Namespace, site: Site) -> int:
    sheet = site.keys.sheet()
    if sheet.password is None and sheet.key is None:
        raise CommandError(
            "there are no keys yet: the first backup makes them, `backupgw backup keys make` too"
        )
    if arguments.json:
        json_document({"restic_password": sheet.password, "age_key": sheet.key})
        return Exit.DONE
    line(f"Keys of the backups of {site.host}. Keep this sheet away from the machine, and secret:")
    line("without it nobody can open the backups; with it, anybody who can reach them.")
    if sheet.password is not None:
        line("")
        line(f"    restic password:  {sheet.password}")
        line("")
        line(f"Opens the restic repository, the folder {REPOSITORY} at each provider:")
        line(f"    restic -r WHERE/{REPOSITORY} snapshots")
    if sheet.key is not None:
        line("")
        line(f"    {sheet.key}")
        line("")
        line("Opens the archives, the folder archives at each provider:")
        line("    age -d -i THIS-KEY ARCHIVE.tar.zst.age | zstd -d | tar -x")
    line("")
    line("On another machine: backupgw backup keys import THIS-SHEET")
    return Exit.DONE
