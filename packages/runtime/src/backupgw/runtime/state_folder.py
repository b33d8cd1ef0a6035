"""The folder where a gateway keeps what must outlive it: its database, unless that is PostgreSQL.

It lies on a local disk (SQLite's locks are not to be trusted on network file systems), is readable
by its owner only and belongs to the user that the service runs as.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import settings_file
from .command import CommandError

if TYPE_CHECKING:
    from .settings import Settings

SYSTEM_FOLDER = Path("/var/lib/backupgw")
DATABASE = "state.sqlite3"
"""The gateway's database, unless `[state] database` names another."""
OLD_TOKENS = "tokens.sqlite3"
"""Where tokens were before there was a database; taken over when that is opened."""


def find(settings: Settings, environ: Mapping[str, str] | None = None) -> Path:
    """Return where the state folder is, whether it exists or not.

    Args:
        environ: default `os.environ`.
    """
    return _chosen(settings.section("state").folder, os.environ if environ is None else environ)


def of_command(config: Path | None) -> Path:
    """Return where the state folder is for a command that needs nothing else of the settings. Where
    the file says no more of it than a folder, what checks all settings is not even imported, which
    takes longer than most of what such commands do.

    Raises:
        SettingsError: the file cannot be read, or its section `[state]` is wrong.
    """
    environ = os.environ
    found = settings_file.find(config, environ)
    values = settings_file.read(found).values if found else {}
    state = values.get("state", {})
    told_elsewhere = "etcd" in values or any(
        name.upper().startswith(("BACKUPGW_STATE__", "BACKUPGW_ETCD__")) for name in environ
    )
    if not told_elsewhere and isinstance(state, dict) and state.keys() <= {"folder"}:
        folder = state.get("folder")
        if folder is None or (isinstance(folder, str) and folder):
            return _chosen(None if folder is None else Path(folder), environ)
    from .settings import load

    return find(load(config, serving=(), only=("state",)))


def _chosen(configured: Path | None, environ: Mapping[str, str]) -> Path:
    if configured is not None:
        return configured.absolute()
    # systemd joins several by colons; the first is the service's own.
    if given := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    if (home := environ.get("XDG_STATE_HOME")) and os.path.isabs(home):
        return Path(home, "backupgw")
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    if home := environ.get("HOME"):
        return Path(home, ".local", "state", "backupgw").absolute()
    return SYSTEM_FOLDER


def database_there(settings: Settings) -> bool:
    """Return whether there is a database already: PostgreSQL by the settings, else SQLite's file,
    or what it will be made from. Costs a look at two files."""
    if settings.section("state").database is not None:
        return True
    folder = find(settings)
    return any(os.path.exists(folder / name) for name in (DATABASE, OLD_TOKENS))


def prepare(folder: Path) -> Path:
    """Make the folder if it is not there, and return it.

    Raises:
        CommandError: it cannot be made or used, or others could put their files in it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise CommandError(
            f"cannot use the state folder {folder}: {error.strerror}; "
            "set folder in [state] to one that this user can write"
        ) from error
    if status.st_mode & stat.S_IWOTH:
        raise CommandError(f"others can write to the state folder {folder}; chmod 700 it")
    return folder


def make_file(path: Path) -> None:
    """Make an empty file in the state folder if there is none, readable by its owner only.

    What root makes for the service, it makes as the folder's owner: else `backupgw token create`
    run by root would leave files that the service cannot write.

    Raises:
        OSError: it cannot be made.
    """
    try:
        # Never opened where it exists: closing it would drop SQLite's locks on it, which belong
        # to the process and not to a descriptor (sqlite.org/howtocorrupt.html, 2.2).
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
