"""What every command of `backupgw backup` stands on: settings, providers, keys, state."""

from __future__ import annotations

import contextlib
import re
import socket
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime import state_folder
from backupgw.runtime.command import CommandError, UsageError
from backupgw.runtime.commands.store.output import remark
from backupgw.runtime.restic import Restic
from backupgw.runtime.settings import Settings, load

from ..command.session import Session
from ..place_provider import PlaceProvider
from .keys import Keys
from .settings import BackupSettings, SetSettings
from .state import StatusFile, metrics_text, write_whole

FOLDER = "backup"
"""Of the state folder."""


class Site:
    """This installation as backups see it.

    Args:
        arguments: with `config`, as every command has it.
        session: opens the providers, and remembers what became of them.

    Raises:
        CommandError: the settings are wrong, or the state folder cannot be used.
    """

    def __init__(self, arguments: Namespace, session: Session) -> None:
        self.settings: Settings = load(arguments.config, serving=())
        self.backup = self.settings.section("backup", BackupSettings)
        self.session = session
        self.providers = session.providers
        self.state_folder = state_folder.find(self.settings).absolute()
        self.folder: Path = state_folder.prepare(self.state_folder) / FOLDER
        self.keys = Keys(self.folder, self.backup.password, self.backup.key)
        self.status = StatusFile(self.folder)
        self.host = self.backup.host or _machine()

    # -- sets

    def set(self, name: str) -> SetSettings:
        """Return a set of the settings. Raises UsageError."""
        if name not in self.backup.sets:
            known = ", ".join(sorted(self.backup.sets)) or "none; write a [backup.sets.NAME]"
            raise UsageError(f"there is no set {name!r} (sets: {known})")
        return self.backup.sets[name]

    def targets_of(self, chosen: Sequence[str], wanted: SetSettings | None = None) -> list[str]:
        """Return the providers that a command is about, by name.

        Args:
            chosen: on the command line; used whether enabled or not.
            wanted: the set whose providers count where none were chosen.

        Raises:
            UsageError: there is none.
        """
        if chosen:
            for name in chosen:
                self.providers.get(name)
            return list(dict.fromkeys(chosen))
        enabled = [each.name for each in self.providers.enabled()]
        named = list(dict.fromkeys((wanted.to if wanted else ()) or self.backup.to))
        for name in named:
            if not self.providers.get(name).enabled:
                remark(f"{name} is disabled and left out; `backupgw provider enable {name}`")
        names = [name for name in named if name in enabled] if named else enabled
        if not names:
            raise UsageError(self.providers.nobody())
        return names

    def local_folder(self, name: str) -> str | None:
        """Return the folder of this machine that a provider keeps its files in, where it is one."""
        try:
            provider = self.providers.make(name)
        except (BackendError, CommandError):
            return None  # using it will say what is wrong with it
        if not isinstance(provider, PlaceProvider):
            return None
        parts = urlsplit(provider.plan().url)
        return unquote(parts.path) if parts.scheme == "file" else None

    def write_metrics(self) -> None:
        """Bring the file of metrics up to date, where one is wanted. Raises CommandError."""
        if (path := self.backup.metrics_file) is not None:
            write_whole(path, metrics_text(self.status.read()).encode(), 0o644)


@dataclass
class Target:
    """A provider with its place, which is open.

    Attributes:
        restic: on its repository, once somebody has asked for it.
        held: is let go of with the target.
    """

    name: str
    provider: PlaceProvider
    place: Backend
    held: contextlib.ExitStack
    restic: Restic | None = None


@contextlib.contextmanager
def target(site: Site, name: str) -> Iterator[Target]:
    """Yield a provider, opened.

    Raises:
        CommandError, BackendError: it cannot be used.
    """
    provider = site.session.place_provider(name)
    with contextlib.ExitStack() as held:
        yield Target(name, provider, provider.open(), held)


def _machine() -> str:
    name = socket.gethostname().partition(".")[0].lower()
    name = re.sub(r"[^a-z0-9_-]+", "-", name).strip("-_")
    if not name:
        raise CommandError("this machine has no usable name; set host in [backup]")
    return name[:63]
