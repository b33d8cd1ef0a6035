"""A program as a child of ours: followed line by line, stopped in good order, gone with us.

A small launcher (`launcher.py`) asks the kernel to end the program when the thread that started it
ends, and to confine it where that is wanted.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .stopping import StopSignal

GRACE = 30.0
"""Seconds between the word to stop and SIGKILL: restic ends what it uploads, and its locks."""
LONGEST_LINE = 256 << 20
"""Bytes; `restic snapshots` answers by one line."""
_READ = 1 << 18

_LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")

Line = Callable[[bytes], None]


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        status: as subprocess has it: negative for a signal.
        stopped: whether we had asked it to.
        timed_out: whether that was for its time limit.
        killed: whether it did not do so, and was killed.
    """

    status: int
    stopped: bool = False
    timed_out: bool = False
    killed: bool = False


def tethered(command: Sequence[str], ending: signal.Signals, confined: str = "") -> list[str]:
    """Return a command that runs `command`, which gets a signal when the starting thread ends.

    Args:
        command: an absolute path, and arguments.
        confined: what it may touch of the disk, as `launcher.py` takes it; "": anything.
    """
    return [
        *(sys.executable, "-I", "-S", _LAUNCHER),
        *(str(os.getpid()), str(int(ending)), confined, *command),
    ]


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    descriptors: Sequence[int] = (),
    on_output: Line,
    on_error: Line,
    stop: StopSignal | None = None,
    ending: signal.Signals = signal.SIGTERM,
    grace: float = GRACE,
    time_limit: float | None = None,
    directory: str = "/",
    stdin: int = subprocess.DEVNULL,
    on_piece: Line | None = None,
    confined: str = "",
) -> Ended:
    """Run a program to its end and return how it ended.

    Args:
        command: an absolute path, and arguments.
        environment: all of it.
        descriptors: that it is to inherit, under their numbers.
        on_output, on_error: given each line of either, without its end. What they raise ends the
            program, and is raised.
        stop: ends it when set.
        ending: how it is asked to stop.
        grace: seconds until it is killed after that.
        time_limit: seconds after which it is stopped; None: none.
        on_piece: given its output as it comes, instead of `on_output` by the line.
        confined: what it may touch of the disk, as `launcher.py` takes it; "": anything.

    Raises:
        OSError: it cannot be started.
    """
    if not os.access(command[0], os.X_OK):
        raise FileNotFoundError(2, "No such program", command[0])
    process = subprocess.Popen(
        tethered(command, ending, confined),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        pass_fds=tuple(descriptors),
        cwd=directory,
        # A group of its own: Ctrl-C at our terminal is ours to pass on, and what it starts
        # (ssh, rclone) can be ended with it.
        start_new_session=True,
    )
    descriptor = -1
    try:
        descriptor = os.pidfd_open(process.pid)
        output = _Lines(on_output) if on_piece is None else _Pieces(on_piece)
        return _Watch(process, descriptor, output, on_error, stop, ending, grace).follow(time_limit)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            if process.poll() is None:
                process.send_signal(ending)
                try:
                    process.wait(grace)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


class _Watch:
    """Follows a process: its output, its end, and the word that it is to stop."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        descriptor: int,
        output: _Lines | _Pieces,
        on_error: Line,
        stop: StopSignal | None,
        ending: signal.Signals,
        grace: float,
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._descriptor = descriptor
        self._lines: dict[int, _Lines | _Pieces] = {
            process.stdout.fileno(): output,
            process.stderr.fileno(): _Lines(on_error),
        }
        self._stop = stop
        self._ending = ending
        self._grace = grace
        self._asked: float | None = None
        self._killed = False
        self._poll = select.poll()
        for each in (*self._lines, descriptor):
            self._poll.register(each, select.POLLIN)
            if each != descriptor:
                os.set_blocking(each, False)
        if stop is not None:
            self._poll.register(stop.fileno(), select.POLLIN)

    def follow(self, time_limit: float | None) -> Ended:
        limit = None if time_limit is None else time.monotonic() + time_limit
        timed_out = False
        while True:
            wait = self._until(limit)
            ready = {each for each, _ in self._poll.poll(None if wait is None else wait * 1000)}
            for each in ready & self._lines.keys():
                self._read(each)
            if self._descriptor in ready:
                break
            if self._stop is not None and self._stop.fileno() in ready:
                self._poll.unregister(self._stop.fileno())
                self._ask()
            if limit is not None and time.monotonic() >= limit and self._asked is None:
                timed_out = True
                self._ask()
            if self._asked is not None and time.monotonic() >= self._asked + self._grace:
                self._kill()
        for each in self._lines:
            # What it left running may hold the pipes open: only what is there counts.
            self._read(each, all_of_it=True)
        for lines in self._lines.values():
            lines.end()
        if self._killed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        return Ended(status, self._asked is not None, timed_out, self._killed)

    def _until(self, limit: float | None) -> float | None:
        ends = []
        if self._asked is not None:
            if not self._killed:
                ends.append(self._asked + self._grace)
        elif limit is not None:
            ends.append(limit)
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _read(self, descriptor: int, *, all_of_it: bool = False) -> None:
        while True:
            try:
                piece = os.read(descriptor, _READ)
            except BlockingIOError:
                return
            if not piece:
                with contextlib.suppress(KeyError):
                    self._poll.unregister(descriptor)
                return
            self._lines[descriptor].add(piece)
            if not all_of_it:
                return

    def _ask(self) -> None:
        self._asked = time.monotonic()
        signal.pidfd_send_signal(self._descriptor, self._ending)

    def _kill(self) -> None:
        if not self._killed:
            self._killed = True
            os.killpg(self._process.pid, signal.SIGKILL)


class _Lines:
    """Puts pieces of output together to lines."""

    def __init__(self, tell: Line) -> None:
        self._tell = tell
        self._rest = bytearray()

    def add(self, piece: bytes) -> None:
        self._rest += piece
        if b"\n" not in piece:
            if len(self._rest) > LONGEST_LINE:
                raise ValueError(f"a line of more than {LONGEST_LINE} bytes")
            return
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            self._tell(bytes(line))

    def end(self) -> None:
        if self._rest:
            self._tell(bytes(self._rest))
            self._rest.clear()


class _Pieces:
    """Passes output on as it comes."""

    def __init__(self, tell: Line) -> None:
        self.add = tell

    def end(self) -> None:
        """There is nothing left over."""
