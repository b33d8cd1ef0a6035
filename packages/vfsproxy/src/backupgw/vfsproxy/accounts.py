"""The ledger of virtual folders: one account for each folder, user and group.

Every volume is a place of the ledger, so a file that goes from one folder to another in a volume
changes both accounts in one step. Limits lie in the database; the ledger is told of them when they
change and when a gateway starts, so that a ledger that was lost or made anew has them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from backupgw.kvstore.ledger import Alarm, Ledger, Limit, SQLiteLedger, Usage
from backupgw.runtime import state_folder
from backupgw.runtime.database import Connection, Database
from backupgw.runtime.settings import Settings

from .folders import catalogue, people
from .folders.records import Folder, Holder, Kind, Limits
from .settings import LimitSettings, VfsSettings

log = logging.getLogger(__name__)

PREFIX = "vfs:"
"""What begins the names of our accounts, in a ledger that other services use as well."""


def place_of(volume: str) -> str:
    """Return what the ledger calls a volume."""
    return f"{PREFIX}{volume}"


def make_ledger(
    settings: Settings, database: Database, on_alarm: Callable[[Alarm], None] | None
) -> Ledger:
    """Return the ledger, not open: in PostgreSQL where gateways share one, else in a file.

    Raises:
        CommandError: the state folder cannot be used.
    """
    named = settings.section("vfs", VfsSettings).ledger
    if named is None and database.dialect == "postgresql":
        from backupgw.runtime.ledger import PostgresLedger

        return PostgresLedger(database, on_alarm=on_alarm)
    if named is None:
        folder = state_folder.prepare(state_folder.find(settings) / "vfs")
        named = folder / "ledger.sqlite3"
    return SQLiteLedger(str(named), on_alarm=on_alarm)


class Accounts:
    """What may be held, and what is.

    Attributes:
        ledger: open.
    """

    def __init__(self, ledger: Ledger, vfs: VfsSettings) -> None:
        self.ledger = ledger
        self._defaults: Mapping[Kind, Limits] = {
            Kind.USER: _limits(vfs.users),
            Kind.GROUP: _limits(vfs.groups),
        }
        self.folder_default = _limits(vfs.folders)

    def default(self, kind: Kind) -> Limits:
        """Return what a user or group may hold without limits of their own."""
        return self._defaults[kind]

    def limits_of(self, connection: Connection, holder: Holder) -> Limits:
        """Return what somebody may hold."""
        return people.limits_of(connection, holder) or self.default(holder.kind)

    def usage(self, scope: str) -> Usage:
        """Return an account, in constant time."""
        return self.ledger.usage(scope)

    def set_limits(self, scope: str, limits: Limits) -> None:
        """Let the ledger know."""
        if self.ledger.usage(scope).limit != limits.of_ledger():
            self.ledger.set_limit(scope, limits.of_ledger())

    def learn(self, connection: Connection, folder: Folder) -> None:
        """See to it that the accounts of a folder have their limits."""
        self.set_limits(folder.scope, folder.limits)
        self.set_limits(folder.holder.scope, self.limits_of(connection, folder.holder))

    def learn_all(self, database: Database) -> None:
        """Tell the ledger all limits that it does not know; once, before anybody writes."""
        wanted: dict[str, Limit] = {}
        with database.read() as connection:
            for folder in catalogue.everything(connection):
                wanted[folder.scope] = folder.limits.of_ledger()
                default = self.default(folder.holder.kind)
                wanted.setdefault(folder.holder.scope, default.of_ledger())
            for holder, limits in people.all_limits(connection):
                effective = limits or self.default(holder.kind)
                wanted[holder.scope] = effective.of_ledger()
        known = {
            usage.scope: usage.limit
            for usage in self.ledger.usages()
            if usage.scope.startswith(PREFIX)
        }
        for scope, limit in wanted.items():
            if known.get(scope, Limit()) != limit:
                self.ledger.set_limit(scope, limit)


def _limits(settings: LimitSettings) -> Limits:
    return Limits(None if settings.bytes is None else int(settings.bytes), settings.files)
