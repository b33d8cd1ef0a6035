"""Hooks that run a command: the event as JSON on standard input, and in its environment.

    BACKUPGW_EVENT_TYPE=quota.reached BACKUPGW_EVENT_SCOPE=user:alice …

No shell is involved. The command does not inherit the gateway's environment, which may hold
secrets, but for what a program needs to run (PATH, HOME, language, time zone, temporary folder).
Exit status 0 is success; anything else is tried again.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence

from backupgw.runtime.secrets import redact_url

from .filters import as_text
from .hooks import Outcome, Result
from .journal import Letter

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR")
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
LONGEST_VALUE = 32 << 10
"""Bytes of one environment variable; Linux refuses to start a program with one above 128 KiB."""
TAIL = 500
"""Characters of a failed command's output that are logged."""


class CommandCarrier:
    """Runs `command` once for each letter."""

    def __init__(
        self, command: Sequence[str], time_limit: float, environ: Mapping[str, str]
    ) -> None:
        """Describe a command.

        Args:
            command: program and arguments.
            time_limit: seconds after which it is ended, with all that it started.
            environ: the gateway's environment, of which a few variables are handed on.
        """
        self._command = list(command)
        self._limit = time_limit
        self.time_limit = time_limit + GRACE
        self._environ = {
            name: value
            for name, value in environ.items()
            if name in INHERITED or name.startswith("LC_")
        }
        self._interrupted = threading.Event()
        self._signal = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def deliver(self, letter: Letter) -> Outcome:
        if self._interrupted.is_set():
            return Outcome(Result.INTERRUPTED)
        # A file, not a pipe: a command that does not read cannot hold anybody up.
        with tempfile.TemporaryFile() as given:
            given.write(letter.text.encode() + b"\n")
            given.seek(0)
            try:
                process = subprocess.Popen(
                    self._command,
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**self._environ, **variables(letter)},
                    start_new_session=True,
                )
            except OSError as error:
                return Outcome(Result.FAILED, f"cannot run {self._command[0]}: {error.strerror}")
        with process:
            return self._watch(process)

    def _watch(self, process: subprocess.Popen[bytes]) -> Outcome:
        assert process.stdout is not None
        descriptor = os.pidfd_open(process.pid)
        try:
            tail = bytearray()
            reached = self._until_end(process.stdout.fileno(), descriptor, tail)
            if reached != "end":
                _end(process, descriptor)
            status = process.wait()
        finally:
            os.close(descriptor)
        if reached == "interrupt":
            return Outcome(Result.INTERRUPTED)
        if reached == "limit":
            return Outcome(Result.FAILED, f"the command took longer than {self._limit:g} s")
        if status == 0:
            return Outcome(Result.DELIVERED)
        said = " ".join(bytes(tail).decode(errors="replace").split())[-TAIL:]
        how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        return Outcome(
            Result.FAILED, f"the command {how}" + (f": {redact_url(said)}" if said else "")
        )

    def _until_end(self, output: int, process: int, tail: bytearray) -> str:
        """Keep the end of the output until the process ends ("end"), or "limit", "interrupt".

        The process's end counts, not its output's: what it left running may hold the pipe open.
        """
        os.set_blocking(output, False)
        poll = select.poll()
        for descriptor in (output, process, self._signal):
            poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + self._limit
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return "limit"
            ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
            if output in ready or process in ready:
                try:
                    piece = os.read(output, 65536)
                except BlockingIOError:
                    piece = None
                if piece == b"":
                    if output in ready:
                        poll.unregister(output)
                elif piece:
                    tail[:] = (tail + piece)[-4 * TAIL :]
            if process in ready:
                return "end"
            if self._signal in ready:
                return "interrupt"

    def interrupt(self) -> None:
        self._interrupted.set()
        os.eventfd_write(self._signal, 1)

    def close(self) -> None:
        os.close(self._signal)


def _end(process: subprocess.Popen[bytes], descriptor: int) -> None:
    """End a process with all of its group; it has not been waited for, so the group is its own."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    os.killpg(process.pid, signal.SIGTERM)
    poll.poll(GRACE * 1000)
    os.killpg(process.pid, signal.SIGKILL)


def variables(letter: Letter) -> dict[str, str]:
    """Return an event as environment variables, each short enough to start a program with."""
    document = json.loads(letter.text)
    data = document.pop("data")
    found = {}
    for name, value in {**data, **document}.items():
        text = as_text(value).replace("\0", "\N{REPLACEMENT CHARACTER}")
        # Names of files that are not UTF-8 come back as the bytes they were; nothing else that
        # Unicode lacks may keep a command from starting.
        raw = text.encode("utf-8", "surrogateescape" if _escaped(text) else "replace")
        found[f"BACKUPGW_EVENT_{name.upper()}"] = os.fsdecode(raw[:LONGEST_VALUE])
    return found


def _escaped(text: str) -> bool:
    return all(not "\ud800" <= sign <= "\udfff" or "\udc80" <= sign <= "\udcff" for sign in text)
