"""A server as a child process: started, waited for by what it prints, stopped by its id."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .child import Child

START_TIMEOUT = 60
"""Seconds until a server must have said that it listens; generous, for loaded machines."""
STOP_TIMEOUT = 30
"""Seconds until a server must have ended after SIGTERM."""


class ServerFailed(Exception):
    """A server did not start or did not stop; the message holds what it printed."""


class ServerProcess:
    """A running server. A context manager that stops it.

    Everything it prints is kept in `lines`; `match` is what its ready line matched.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        ready: str,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start `command` and wait until a line matches the regular expression `ready`.

        Raises:
            ServerFailed: it ended, or said nothing of the kind within START_TIMEOUT seconds.
        """
        self.command = [os.fspath(part) for part in command]
        self.lines: list[str] = []
        self._pattern = re.compile(ready)
        self._match: re.Match[str] | None = None
        self._changed = threading.Condition()
        self._ended = False
        self.process = Child(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            text=True,
            errors="replace",
            # A group of its own: a stop reaches its workers, and Ctrl-C in pytest does not.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="server output", daemon=True)
        self._reader.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._match or self._ended, START_TIMEOUT)
        except BaseException:  # the test's time is over
            self.kill()
            raise
        if self._match is None:
            self.kill()
            raise ServerFailed(f"{self._describe()} did not get ready")

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def match(self) -> re.Match[str]:
        assert self._match is not None
        return self._match

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """Everything it printed so far."""
        with self._changed:
            return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, timeout: float = 30) -> str:
        """Return the first line that matches, past or to come within `timeout` seconds.

        Raises:
            ServerFailed: no such line, or the server ended without printing it.
        """
        compiled = re.compile(pattern)

        def found() -> str | None:
            return next((line for line in self.lines if compiled.search(line)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, timeout)
            line = found()
        if line is None:
            raise ServerFailed(f"{self._describe()} did not print {pattern!r}")
        return line

    def stop(self) -> int:
        """End it with SIGTERM and return its exit status; idempotent.

        Raises:
            ServerFailed: it went on for STOP_TIMEOUT seconds and had to be killed.
        """
        if self.running:
            self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(f"{self._describe()} did not stop on SIGTERM") from None
        except BaseException:
            self.kill()
            raise
        self._finish()
        return self.process.returncode

    def kill(self) -> None:
        """End it and its workers with SIGKILL."""
        self.process.end()
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                if self._match is None:
                    self._match = self._pattern.search(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _finish(self) -> None:
        self._reader.join(STOP_TIMEOUT)
        assert self.process.stdout is not None
        if not self._reader.is_alive():
            self.process.stdout.close()

    def _describe(self) -> str:
        tail = "\n".join(self.lines[-20:])
        return f"{' '.join(self.command)} (status {self.process.poll()}, printed:\n{tail}\n)"
