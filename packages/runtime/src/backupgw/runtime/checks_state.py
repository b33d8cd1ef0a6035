"""The doctor's look at the state: its folder, and the database."""

from __future__ import annotations

import importlib.util
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import state_folder
from .checks import Result, Status, space
from .command import CommandError
from .settings import Settings
from .settings_state import StateSettings

if TYPE_CHECKING:
    from .database import Database

CLOCK_SKEW = 5.0
"""Seconds that PostgreSQL's clock may differ: leases and tokens go by it."""
SLOW = 0.05
"""Seconds of a round trip above which it is a warning: some are needed for each upload."""


def check_state(settings: Settings) -> Iterator[Result]:
    """Look at both. Makes nothing and migrates nothing."""
    folder = state_folder.find(settings)
    yield from _check_folder(folder)
    state = settings.section("state", StateSettings)
    if state.database is None and not (folder / state_folder.DATABASE).exists():
        yield Result("database", Status.OK, "not made yet; it is when it is first needed")
    elif importlib.util.find_spec("sqlalchemy") is None:
        yield Result("database", Status.FAILED, "the library sqlalchemy is not installed")
    else:
        yield from _check_database(settings)


def _check_folder(folder: Path) -> Iterator[Result]:
    label = "state folder"
    try:
        status = folder.stat()
    except FileNotFoundError:
        parent = next(path for path in folder.parents if path.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            yield Result(label, Status.OK, f"{folder} is not there yet, and can be made")
        else:
            yield Result(
                label, Status.FAILED, f"{folder} is not there, and this user cannot make it"
            )
        return
    except OSError as error:
        yield Result(label, Status.FAILED, f"{folder}: {error.strerror}")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Result(label, Status.FAILED, f"{folder} is no folder")
    elif status.st_mode & stat.S_IWOTH:
        yield Result(label, Status.FAILED, f"others can write to {folder}; chmod 700 it")
    elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Result(label, Status.FAILED, f"this user cannot write to {folder}")
    else:
        if status.st_mode & 0o077:
            yield Result(label, Status.WARNING, f"others can look into {folder}; chmod 700 it")
        else:
            yield Result(label, Status.OK, str(folder))
        yield from space(label, folder)


def _check_database(settings: Settings) -> Iterator[Result]:
    from .database import schema
    from .database.state import connect_state

    label = "database"
    try:
        with connect_state(settings) as database:
            if database.dialect == "sqlite":
                yield from _check_sqlite(label, database)
            else:
                yield from _check_postgresql(label, database)
            migration = schema.migrate(database, dry_run=True)
    except CommandError as error:
        yield Result(label, Status.FAILED, str(error))
        return
    if not migration.steps:
        yield Result(label, Status.OK, f"its tables are of version {migration.needed}, as needed")
    elif database.dialect == "sqlite":
        yield Result(
            label,
            Status.OK,
            f"its tables are of version {migration.found}; they become {migration.needed} when "
            "it is next opened",
        )
    else:
        yield Result(
            label,
            Status.FAILED,
            f"its tables are of version {migration.found}, this backupgw needs "
            f"{migration.needed}; run: backupgw config migrate",
        )


def _check_sqlite(label: str, database: Database) -> Iterator[Result]:
    with database.read() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found == "ok":
        yield Result(label, Status.OK, f"{database.address.shown} is whole")
    else:
        yield Result(
            label,
            Status.FAILED,
            f"{database.address.shown} is damaged ({found}); stop the gateway, move the file away "
            "and bring an export back by: backupgw state import FILE",
        )


def _check_postgresql(label: str, database: Database) -> Iterator[Result]:
    with database.autocommit() as connection:
        version = connection.exec_driver_sql("SHOW server_version").scalar()
        yield Result(label, Status.OK, f"{database.address.shown} answers, version {version}")
        started = time.monotonic()
        theirs = database.now(connection)
        took = time.monotonic() - started
    if took > SLOW:
        yield Result(
            label,
            Status.WARNING,
            f"a round trip takes {took * 1000:.0f} ms; bring gateway and database closer together",
        )
    if abs(skew := theirs - time.time()) > CLOCK_SKEW:
        yield Result(
            label,
            Status.WARNING,
            f"its clock differs from this machine's by {skew:.0f} s; set both by NTP",
        )
