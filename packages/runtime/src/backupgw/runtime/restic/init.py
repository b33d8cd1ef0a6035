"""Making a repository when several might do it in the same moment.

Two `restic init` at once both succeed, each with a key of its own for another master key, and the
repository opens by chance only. restic itself cannot prevent that, so whoever wants to make one
takes a turn first (`Turn`), and looks again once it has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Protocol

from backupgw.kvstore.backends.errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    ObjectExists,
    ObjectNotFound,
)

from .commands import Restic
from .errors import RepositoryAway, ResticStopped
from .stopping import StopSignal

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend

log = logging.getLogger(__name__)

INIT_LIMIT = 60.0
"""Seconds after which `restic init` is stopped."""
DEAD_AFTER = 120.0
"""Seconds that a turn may take; then whoever has it must have died: longer than INIT_LIMIT and the
time that restic is given to stop."""
SETTLE = 10.0
"""Seconds until everybody sees a claim, in places where several can make one at once."""
_LOOK_EVERY = 0.5
_NAME = "backupgw-init"


class Turn(Protocol):
    """What lets one of many in at a time."""

    def take(self, stop: StopSignal | None) -> AbstractContextManager[None]:
        """Wait for the turn, and have it while the block lasts.

        Raises:
            ResticError: it cannot be had.
        """


def ensure_repository(
    restic: Restic, turns: Sequence[Turn], *, stop: StopSignal | None = None
) -> bool:
    """Make the repository unless it is there; return whether it was made.

    Args:
        turns: taken in this order.

    Raises:
        ResticError: it cannot be made, or it is there and does not open. Nothing is made where it
            is not certain that there is none.
    """
    if restic.exists(stop=stop):
        return False
    with contextlib.ExitStack() as stack:
        for turn in turns:
            stack.enter_context(turn.take(stop))
        if restic.exists(stop=stop):
            return False
        restic.init(time_limit=INIT_LIMIT, stop=stop)
        # What was made must open, by whichever key restic tries first.
        restic.exists(stop=stop)
    log.info("the repository %s was made", restic.repository.shown)
    return True


class MachineTurn:
    """Among the processes of a machine: a lock on a file, which ends with its process.

    Args:
        folder: for the file; the same for all.
        name: tells repositories apart.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.lock"

    @contextlib.contextmanager
    def take(self, stop: StopSignal | None) -> Iterator[None]:  # noqa: ARG002 - it is short
        """Wait for the turn; see `Turn`."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class PlaceTurn:
    """Among all that reach a place of the kernel's: a claim that only one can create.

    Claims are numbered. The one with the highest number counts; who has it removes it in the end.
    Where a claim stays unchanged for DEAD_AFTER seconds, by the clock of who looks at it, the next
    number is the next one's, and again only one can create it.

    In a place that cannot tell who was first, each puts a claim of its own there, waits for SETTLE
    seconds, and of all that are there by then the first by its name counts. That holds as long as a
    claim is listed within half of that time; one that took longer to write is withdrawn.

    Args:
        place: where the repository lies; opened here.
        folder: of the repository in the place; "" for the place itself.
    """

    def __init__(self, place: Backend, folder: str = "") -> None:
        self._place = place
        self._prefix = f"{folder}/{_NAME}" if folder else _NAME
        self._folder = folder

    @contextlib.contextmanager
    def take(self, stop: StopSignal | None) -> Iterator[None]:
        """Wait for the turn; see `Turn`."""
        try:
            with contextlib.suppress(BackendAlreadyExists, ObjectExists):
                self._place.create()
            with self._place:
                able = self._place.capabilities
                # Names that are claimed are so among those who share a ledger, not for everybody.
                if able.atomic_create and not able.claimed:
                    mine = self._claim(stop)
                    try:
                        yield
                    finally:
                        self._remove(mine)
                else:
                    name = self._agree(stop)
                    try:
                        yield
                    finally:
                        self._withdraw(name)
        except BackendDoesNotExist as error:
            raise RepositoryAway(f"the place of the repository is not there: {error}") from error
        except BackendError as error:
            raise RepositoryAway(f"the place of the repository: {error}") from error

    def _claim(self, stop: StopSignal | None) -> int:
        content = json.dumps({"by": secrets.token_hex(16)}).encode()
        seen: tuple[int, bytes] | None = None
        since = time.monotonic()
        pause = Event()
        while True:
            highest = self._highest()
            number = 0 if highest is None else highest[0] + 1
            if highest is None or (highest == seen and time.monotonic() - since > DEAD_AFTER):
                if self._create(number, content):
                    return number
                continue
            if highest != seen:
                seen, since = highest, time.monotonic()
            _check(stop)
            # Nothing tells when somebody on another machine has removed an object.
            pause.wait(_LOOK_EVERY)

    def _agree(self, stop: StopSignal | None) -> str:
        """Return our claim, which all agree on, in a place where several could create one."""
        since: dict[str, float] = {}
        pause = Event()
        while True:
            _check(stop)
            there = self._claims()
            since = {name: since.get(name, time.monotonic()) for name in there}
            for name, first_seen in since.items():
                if time.monotonic() - first_seen > DEAD_AFTER:
                    self._withdraw(name)  # whoever made it has died
            if not there:
                mine = f"{_NAME}-by-{secrets.token_hex(16)}"
                began = time.monotonic()
                self._place.store(self._path(mine), b"")
                took = time.monotonic() - began
                pause.wait(SETTLE)
                if took < SETTLE / 2 and min(self._claims(), default="") == mine:
                    return mine
                self._withdraw(mine)
            # Nothing tells when somebody on another machine has removed an object; and those who
            # withdrew together must not come back together.
            pause.wait(_LOOK_EVERY * (1 + secrets.randbelow(100) / 100))

    def _claims(self) -> list[str]:
        with contextlib.suppress(ObjectNotFound):
            names = (item.name.rpartition("/")[2] for item in self._place.list(self._folder))
            return [name for name in names if name.startswith(f"{_NAME}-by-")]
        return []

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    def _withdraw(self, name: str) -> None:
        try:
            self._place.delete(self._path(name))
        except ObjectNotFound:
            return
        except BackendError as error:
            log.warning("a claim on a repository's making stays behind: %s", error)

    def _highest(self) -> tuple[int, bytes] | None:
        numbers = []
        with contextlib.suppress(ObjectNotFound):
            for item in self._place.list(self._folder):
                name, _, number = item.name.rpartition("-")
                if name == _NAME and number.isdecimal():
                    numbers.append(int(number))
        if not numbers:
            return None
        highest = max(numbers)
        try:
            return highest, self._place.load(f"{self._prefix}-{highest:04d}")
        except ObjectNotFound:
            return highest, b""

    def _create(self, number: int, content: bytes) -> bool:
        writer = self._place.open_writer(
            f"{self._prefix}-{number:04d}", size=len(content), if_absent=True
        )
        try:
            writer.write(content)
            writer.commit()
        except ObjectExists:
            return False
        except BaseException:
            writer.abort()
            raise
        return True

    def _remove(self, mine: int) -> None:
        # The highest last: while any is there, nobody begins again at 0.
        for number in range(mine + 1):
            try:
                self._place.delete(f"{self._prefix}-{number:04d}")
            except ObjectNotFound:
                continue
            except BackendError as error:
                log.warning("a claim on a repository's making stays behind: %s", error)


def _check(stop: StopSignal | None) -> None:
    if stop is not None and stop.is_set:
        raise ResticStopped("stopped while another makes the repository")
