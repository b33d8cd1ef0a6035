"""The servers that are put under fault: the gateway, and a stand-in with chosen defects.

The stand-in (`flawed_server`) is the control: a test that cannot tell the flawed server from a
sound one proves nothing about the gateway.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.child import Child

ROOT = Path(__file__).resolve().parents[2]

START_LINE = re.compile(r"start server on (?:https?://)?\S*:(\d+)")


@dataclass(frozen=True, slots=True)
class Program:
    """A server's command line, to which a folder and an address are added."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def arguments(self, folder: Path, port: int) -> list[str]:
        return [*self.command, "--path", str(folder), "--listen", f"127.0.0.1:{port}"]


def gateway(*flags: str) -> Program:
    """The gateway as users start it, with its default durability."""
    command = Path(sys.executable).with_name("backupgw")
    return Program("gateway", (str(command), "rest", "serve", "--no-auth", *flags))


def gateway_without_syncs() -> Program:
    """The gateway with the durability that an operator can choose and that promises nothing."""
    program = gateway()
    return Program(
        "gateway without syncs",
        program.command,
        {"BACKUPGW_PLACES__PATH__DURABILITY": "fast"},
    )


def flawed(*flaws: str) -> Program:
    """The stand-in with these defects; without any, it is a sound, slow server."""
    module = ("-m", "tests.faults.flawed_server", "--flaws", ",".join(flaws))
    return Program("flawed" if flaws else "sound", (sys.executable, *module))


class Running:
    """A started server. `process` is what answers, or the tracer around it."""

    def __init__(
        self, program: Program, folder: Path, port: int = 0, *, prefix: Sequence[str] = ()
    ) -> None:
        """Start it and wait until it accepts connections.

        Args:
            port: 0 for any.
            prefix: a command that runs the server (strace …).

        Raises:
            RuntimeError: it ended instead; the message holds what it printed.
        """
        self.program = program
        self.folder = folder
        self.last_lines: deque[str] = deque(maxlen=200)
        self.process = Child(
            [*prefix, *program.arguments(folder, port)],
            cwd=ROOT,
            env={**os.environ, **program.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self.process.stderr is not None
        self._errors = self.process.stderr
        try:
            self.port = self._wait_for_start()
        except BaseException:
            self.process.end()
            raise
        self._drain = threading.Thread(target=self._keep_lines, daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _wait_for_start(self) -> int:
        for line in self._errors:
            self.last_lines.append(line)
            if found := START_LINE.search(line):
                return int(found[1])
        self._errors.close()
        self.process.wait()
        told = "".join(self.last_lines)
        raise RuntimeError(f"{self.program.name} did not start ({self.process.returncode}): {told}")

    def _keep_lines(self) -> None:
        with contextlib.suppress(ValueError):  # closed under our feet by _end
            self.last_lines.extend(self._errors)

    def kill(self) -> None:
        """End the server and its children as a crash would: SIGKILL."""
        self._signal(signal.SIGKILL)
        self._end()

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
        self._end()
        return self.process.returncode

    def _signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def _end(self) -> None:
        self.process.wait()
        self._drain.join(5)
        self._errors.close()


@contextlib.contextmanager
def running(program: Program, folder: Path, port: int = 0) -> Iterator[Running]:
    """A server for the length of a block."""
    server = Running(program, folder, port)
    try:
        yield server
    finally:
        server.stop()
