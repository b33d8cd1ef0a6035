"""`backupgw backup schedule`: backups by the calendar, by systemd's timers or by cron."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from backupgw.runtime.command import CommandError, Exit, UsageError
from backupgw.runtime.commands.store.output import json_document, line, remark, table
from backupgw.runtime.secrets import names_secret
from backupgw.runtime.settings_sources import PREFIX

from . import schedule_cron, schedule_systemd, schedule_times
from .schedule_systemd import Units
from .site import Site


def schedule(arguments: Namespace, site: Site) -> int:
    """Do what the verb says."""
    match arguments.schedule_verb:
        case "add":
            return _add(arguments, site)
        case "remove":
            return _remove(arguments)
        case _:
            return _list(arguments)


def _add(arguments: Namespace, site: Site) -> int:
    wanted = site.set(arguments.set)
    site.targets_of((), wanted)
    when = schedule_times.read(arguments.at)
    command = [*_program(), *_config(site), "backup", "create", "--set", arguments.set, "--json"]
    if wanted.keep or site.backup.keep:
        command.append("--prune")
    environment = _environment(site)
    if arguments.cron:
        if not when.cron:
            raise UsageError(f"{arguments.at!r}: cron wants 02:30, Sun 03:00 or its five fields")
        changed = schedule_cron.write(arguments.set, when.cron, command, environment)
        how = f"cron ({when.cron})"
    else:
        if not when.calendar:
            raise UsageError(f"{arguments.at!r} is for cron: add --cron, or write 02:30")
        units = _units(arguments)
        changed = units.write(
            arguments.set, when.calendar, command, environment, arguments.random_delay
        )
        how = f"systemd ({when.calendar}), in {units.folder}"
    if arguments.json:
        json_document({"set": arguments.set, "by": how, "changed": changed})
    else:
        line(f"{arguments.set} is backed up by {how}{'' if changed else ', as before'}")
    return Exit.DONE


def _remove(arguments: Namespace) -> int:
    removed = False
    if not arguments.cron:
        removed = _units(arguments).remove(arguments.set)
    else:
        removed = schedule_cron.remove(arguments.set)
    if arguments.json:
        json_document({"set": arguments.set, "removed": removed})
    else:
        line(f"{arguments.set}: {'is scheduled no longer' if removed else 'was not scheduled'}")
    return Exit.DONE


def _list(arguments: Namespace) -> int:
    units = _units(arguments, start=False)
    found = [(name, "systemd", when) for name, when in units.names().items()]
    try:
        found += [(name, "cron", when) for name, when in schedule_cron.names().items()]
    except CommandError:
        if arguments.cron:
            raise
    if arguments.json:
        json_document([{"set": name, "by": by, "at": when} for name, by, when in found])
    elif not found:
        line("nothing is scheduled")
    else:
        table([("SET", "BY", "AT"), *found])
    return Exit.DONE


def _units(arguments: Namespace, *, start: bool = True) -> Units:
    user = arguments.user or os.geteuid() != 0
    if arguments.folder is not None:
        return Units(Path(arguments.folder).absolute(), user, start=False)
    folder = schedule_systemd.user_folder(os.environ) if user else schedule_systemd.SYSTEM
    if start and not schedule_systemd.RUNNING.exists():
        raise CommandError(
            "this machine is not run by systemd; --cron schedules by cron, --folder DIR only "
            "writes the units"
        )
    return Units(folder, user, start)


def _program() -> list[str]:
    """Return how this very program is started."""
    beside = Path(sys.executable).with_name("backupgw")
    if beside.exists():
        return [str(beside)]
    return [os.path.abspath(sys.executable), "-m", "backupgw.runtime.cli"]


def _config(site: Site) -> list[str]:
    if site.settings.config is None:
        return []
    return ["--config", str(site.settings.config.absolute())]


def _environment(site: Site) -> dict[str, str]:
    """Return what a timer has to be told: it begins without an environment."""
    found = {"PATH": os.environ.get("PATH", os.defpath)}
    for name in ("HOME", "XDG_CONFIG_HOME"):
        if os.environ.get(name):
            found[name] = os.environ[name]
    for name, value in sorted(os.environ.items()):
        if not name.startswith(PREFIX):
            continue
        if names_secret(name):
            # Others can read units, and see the environment of what cron starts.
            remark(f"{name} is a secret and is not written down: the timer will not have it")
        else:
            found[name] = value
    found["STATE_DIRECTORY"] = str(site.state_folder)
    return found
