"""The restic repositories of this node: one, or one a server, each with its gate."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

from backupgw.runtime.command import CommandError
from backupgw.runtime.restic import (
    Limits,
    MachineTurn,
    OwnServer,
    PlaceTurn,
    Repository,
    RepositoryMissing,
    Restic,
    StopSignal,
    Turn,
    ensure_repository,
)
from backupgw.runtime.secrets import Secret
from backupgw.runtime.settings import Settings

from .gate import Gate
from .node import ResticPlan
from .settings import WingsSettings
from .turns import NoTurn, turn_of

log = logging.getLogger(__name__)

SHARED = ""
"""The name of the one repository where servers share it."""
PASSWORD = "wings-repository-password"  # noqa: S105 - a file's name


@dataclass
class Held:
    """A repository, opened as soon as it is needed.

    Attributes:
        name: the server's UUID, or SHARED.
        not_made: why the first backup does not make it; None: it does.
        made: whether it is known to be there.
    """

    name: str
    restic: Restic
    turns: list[Turn]
    not_made: str | None = None
    gate: Gate = field(default_factory=Gate)
    made: bool = False
    making: threading.Lock = field(default_factory=threading.Lock)

    def ensure(self, stop: StopSignal | None) -> None:
        """Make the repository unless it is there.

        Raises:
            ResticError: it cannot be made.
        """
        with self.making:
            if not self.made:
                self._make(stop)
                self.made = True

    def _make(self, stop: StopSignal | None) -> None:
        if self.not_made is None:
            ensure_repository(self.restic, self.turns, stop=stop)
        elif not self.restic.exists(stop=stop):
            where = self.restic.repository.shown
            raise RepositoryMissing(f"there is no repository at {where}: {self.not_made}")


class Repositories:
    """All of them, and the server on loopback in front of the place that they lie in.

    Args:
        plan: where and by what.
        state: the gateway's state folder.
    """

    def __init__(self, settings: Settings, plan: ResticPlan, state: Path) -> None:
        self._settings = settings
        self._plan = plan
        self._state = state
        self._section = settings.section("wings", WingsSettings).restic
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._own: OwnServer | None = None
        self._password = ""

    def start(self) -> None:
        """Find the password, and start the server where one is needed.

        Raises:
            CommandError: they cannot be had.
        """
        self._password = self._find_password()
        if not self._plan.confine:
            log.warning(
                "restic is not confined: whoever has a server's files can have others backed up "
                "(confine in [wings.restic])"
            )
        if self._plan.place is not None:
            self._own = OwnServer(self._settings, self._plan.place)
            self._own.start()

    def close(self) -> None:
        """End the server."""
        if self._own is not None:
            self._own.close()

    @property
    def served(self) -> bool:
        """Whether the server in front of the place runs, where there is one."""
        return self._own is None or self._own.process_id is not None

    def of(self, server: str) -> Held:
        """Return the repository that a server's backups are in."""
        return self.named(server if self._section.per_server else SHARED)

    def named(self, name: str) -> Held:
        """Return a repository by its name."""
        with self._lock:
            found = self._held.get(name)
            if found is None:
                found = self._held[name] = self._make(name)
            return found

    @property
    def confine(self) -> bool:
        """Whether restic is held to the server's folder while it makes a backup."""
        return self._plan.confine

    @property
    def per_server(self) -> bool:
        """Whether each server has its own."""
        return self._section.per_server

    def _make(self, name: str) -> Held:
        plan, section = self._plan, self._section
        password = section.passwords[name].reveal() if name in section.passwords else self._password
        turns: list[Turn] = []
        not_made = None
        if self._own is not None and plan.place is not None:
            folder = f"{section.folder}/{name}" if name else section.folder
            address = self._own.url(folder)
            turns.append(PlaceTurn(self._settings.open_place(plan.place), folder))
        else:
            assert plan.address is not None
            address = f"{plan.address.rstrip('/')}/{name}" if name else plan.address
            try:
                turns.append(turn_of(address, plan.environment))
            except NoTurn as error:
                if section.init is None:
                    not_made = (
                        f"{error}; make it by `restic init`, or set init = true in [wings.restic] "
                        "of the only node that does"
                    )
        if section.init is False:
            not_made = "init = false in [wings.restic]; make it by `restic init`"
        repository = Repository(
            address,
            password,
            plan.environment,
            None if section.ca_file is None else str(section.ca_file),
        )
        digest = hashlib.sha256(repository.shown.encode()).hexdigest()[:16]
        turns.insert(0, MachineTurn(self._state / "wings-init", digest))
        restic = Restic(
            plan.program,
            repository,
            cache=plan.cache,
            limits=Limits(
                plan.upload,
                None if section.download is None else int(section.download),
                section.compression,
            ),
            lock_wait=section.lock_wait,
        )
        return Held(name, restic, turns, not_made)

    def _find_password(self) -> str:
        given: Secret | None = self._plan.password
        if given is not None:
            return given.reveal()
        if self._plan.place is None:
            return ""  # each server's own
        path = self._state / PASSWORD
        if not path.exists():
            text = secrets.token_urlsafe(32)
            temporary = path.with_suffix(f".{os.getpid()}")
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)  # never over one that another has just made
            except FileExistsError:
                pass
            finally:
                os.unlink(temporary)
            log.warning(
                "the password of the repository was made and is in %s; keep a copy elsewhere: "
                "without it no backup can be read",
                path,
            )
        try:
            return Secret.from_file(str(path)).reveal()
        except CommandError as error:
            raise CommandError(f"the repository's password: {error}") from error
