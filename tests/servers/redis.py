"""Redis as Debian has it, on a free port of 127.0.0.1, to be stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from .process import ServerFailed, ServerProcess

PROGRAM = "redis-server"
ATTEMPTS = 5
"""Ports tried: between finding a free one and using it, another program may take it."""


class Redis:
    """A Redis with its own folder and port, the same after a restart. A context manager."""

    def __init__(self, folder: Path, *, flags: tuple[str, ...] = ()) -> None:
        self.folder = folder.absolute()
        self.port = 0
        self._flags = flags
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Run it until `stop`. Raises ServerFailed with what it printed."""
        self.folder.mkdir(exist_ok=True)
        for attempt in range(ATTEMPTS):
            port = self.port or _free_port()
            try:
                self._process = ServerProcess(
                    [shutil.which(PROGRAM) or PROGRAM, *self._arguments(port)],
                    ready=r"Ready to accept connections",
                    directory=self.folder,
                )
            except ServerFailed:
                if self.port or attempt == ATTEMPTS - 1:
                    raise
            else:
                self.port = port
                return

    def _arguments(self, port: int) -> list[str]:
        return [
            *["--bind", "127.0.0.1", "--port", str(port), "--dir", str(self.folder)],
            # Kept over a restart: what a cache must not show again is there to be shown.
            *["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
            *self._flags,
        ]

    def stop(self) -> None:
        """End it; its port stays its own for the next start. Idempotent."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self._process is not None, "the server was not started"
        self._process.kill()
        self._process = None

    def freeze(self) -> None:
        """Make it take connections and answer nothing, as a server in trouble does."""
        assert self._process is not None, "the server was not started"
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None, "the server was not started"
        os.kill(self._process.pid, signal.SIGCONT)

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


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
