"""What everything here stands on: the database, the accounts, the volumes, the rules.

A worker of either API opens one, and so does a command.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from backupgw.kvstore.ledger import Alarm
from backupgw.runtime import authorisation, state_folder
from backupgw.runtime.cache import Cache, open_cache
from backupgw.runtime.database import Database
from backupgw.runtime.database.state import open_state
from backupgw.runtime.events import Event, Events, QuotaCleared, QuotaReached
from backupgw.runtime.settings import Settings

from .accounts import Accounts, make_ledger
from .folders.access import Folders
from .folders.fences import Fences, fences_of
from .folders.opened import Volumes
from .folders.remembered import Remembered
from .manager.source import ManagerSource
from .settings import VfsSettings
from .tasks.board import Tasks
from .tasks.handlers import handlers_of
from .tasks.pace import Traffic
from .volumes.registry import volumes_of

Publish = Callable[[Event], object]


class Core:
    """Open from `open` to `close`.

    Attributes:
        settings, vfs: what was configured.
        publish: tells of an event; never waits.
    """

    database: Database
    accounts: Accounts
    volumes: Volumes
    fences: Fences
    folders: Folders
    tasks: Tasks
    traffic: Traffic
    source: ManagerSource | None

    def __init__(
        self,
        settings: Settings,
        publish: Publish,
        *,
        application: str = "backupgw vfs",
        events: Events | None = None,
    ) -> None:
        """Describe it.

        Args:
            application: what PostgreSQL's pg_stat_activity shows.
            events: told of tasks that end here.
        """
        self.settings = settings
        self._events = events
        self.vfs = settings.section("vfs", VfsSettings)
        self.publish = publish
        self.rules = authorisation.from_settings(settings)
        self._application = application
        self._stack = ExitStack()

    def open(self) -> None:
        """Open everything.

        Raises:
            SettingsError, CommandError: the database or the settings of a volume cannot be used.
            BackendError: a volume or the ledger cannot be used.
        """
        with ExitStack() as stack:
            self.database = open_state(self.settings, application=self._application)
            stack.callback(self.database.close)
            ledger = make_ledger(self.settings, self.database, self._alarm)
            ledger.open()
            stack.callback(ledger.close)
            self.accounts = Accounts(ledger, self.vfs)
            self.volumes = Volumes(volumes_of(self.settings), ledger, self.database)
            self.volumes.open()
            stack.callback(self.volumes.close)
            folder = state_folder.find(self.settings) / "vfs"
            self.fences = fences_of(self.database, folder / "fences")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.traffic = Traffic(folder / "traffic")
            stack.callback(self.traffic.close)
            cache = self._cache(stack)
            remembered = None
            if cache is not None and cache.shared:
                remembered = Remembered(cache)
                self.database.subscribe(remembered.forget)
            self.folders = Folders(self.database, self.volumes, self.fences, self.rules, remembered)
            self.source = None
            if self.vfs.manager is not None:
                assert cache is not None
                self.source = ManagerSource(self, self.vfs.manager, cache)
                stack.callback(self.source.close)
            self.tasks = Tasks(self, handlers_of(self), self._events)
            stack.callback(self.tasks.close)
            self._stack = stack.pop_all()

    def _cache(self, stack: ExitStack) -> Cache | None:
        """Return the cache, where anything is kept there: it brings the metrics' library along."""
        if self.vfs.cache.url is None and self.vfs.manager is None:
            return None
        cache = open_cache(self.vfs.cache)
        stack.callback(cache.close)
        return cache.namespace("vfs")

    def close(self) -> None:
        """Close everything, in the other order."""
        self._stack.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _alarm(self, alarm: Alarm) -> None:
        """An account has reached a level, or is below it again; by whatever thread."""
        event = QuotaCleared if alarm.cleared else QuotaReached
        self.publish(
            event(
                scope=alarm.scope,
                measure=alarm.measure.value,
                level=alarm.level,
                limit=alarm.value,
                used=alarm.used,
            )
        )
