"""A server that is stopped and started again: the same folder and port each time."""

from __future__ import annotations

import os
import shutil
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from .free_port import free_port
from .process import ServerFailed, ServerProcess

ATTEMPTS = 5
"""Ports tried: between finding a free one and using it, another program may take it."""


class OwnPort(ABC):
    """A program on a free port of 127.0.0.1 that stays its own. A context manager.

    Attributes:
        program: on the machine's path.
        ready: a regular expression of what it prints once it answers.
    """

    program: ClassVar[str]
    ready: ClassVar[str]

    def __init__(self, folder: Path, *, flags: tuple[str, ...] = ()) -> None:
        self.folder = folder.absolute()
        self.port = 0
        self._flags = flags
        self._process: ServerProcess | None = None

    @abstractmethod
    def _arguments(self, port: int) -> list[str]:
        """Return what follows the program's name, but for the flags."""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Run it until `stop`. Raises ServerFailed with what it printed."""
        self.folder.mkdir(exist_ok=True)
        program = shutil.which(self.program) or self.program
        for attempt in range(ATTEMPTS):
            port = self.port or free_port()
            try:
                self._process = ServerProcess(
                    [program, *self._arguments(port), *self._flags],
                    ready=self.ready,
                    directory=self.folder,
                )
            except ServerFailed:
                if self.port or attempt == ATTEMPTS - 1:
                    raise
            else:
                self.port = port
                return

    def stop(self) -> None:
        """End it; its port stays its own for the next start. Idempotent."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._require_process().kill()
        self._process = None

    def freeze(self) -> None:
        """Make it take connections and answer nothing, as a server in trouble does."""
        os.kill(self._require_process().pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._require_process().pid, signal.SIGCONT)

    def _require_process(self) -> ServerProcess:
        assert self._process is not None, "the server was not started"
        return self._process

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.running:
            self.thaw()
        self.stop()
