"""Servers end with whoever started them, however that one ended.

A test run that a time limit kills runs no clean-up. So each process that starts servers has a
watcher, which is told their ids through a pipe; when the pipe's other end is closed, by the kernel
at the latest, the watcher ends what still runs.

Neither PR_SET_PDEATHSIG nor a wrapper around each server would do: the first looks at the thread
that started the server, and reaches none of its workers; with the second, a server's id would be
another one's.

Run as a script, it is the watcher.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

PATIENCE = 5.0
"""Seconds from SIGTERM to SIGKILL."""

_pipe = -1
"""Where the watcher is told; -1: there is none yet."""
_watcher: subprocess.Popen[bytes] | None = None


def ends_with_us(pid: int) -> None:
    """Have a child end when this process does: SIGTERM, and SIGKILL after PATIENCE seconds.

    With it ends its process group, where it leads one. A child that ends before is forgotten.
    """
    global _pipe, _watcher
    if _pipe < 0:
        reading, _pipe = os.pipe()
        _watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what is sent to our group must not reach it
        )
        os.close(reading)
    os.write(_pipe, f"{pid}\n".encode())


def _forget() -> None:
    """In a forked child: what it starts is its own, and our end must not wait for its end."""
    global _pipe
    if _pipe >= 0:
        os.close(_pipe)
        _pipe = -1


os.register_at_fork(after_in_child=_forget)


def watch() -> None:
    """Wait until standard input is closed, then end what was told there and still runs."""
    running: dict[int, int] = {}  # by descriptors, which another process never takes over
    looking = select.poll()
    looking.register(0, select.POLLIN)
    told = b""
    while True:
        for descriptor, _ in looking.poll():
            if descriptor != 0:
                looking.unregister(descriptor)
                running.pop(descriptor)
                os.close(descriptor)
                continue
            if not (more := os.read(0, 4096)):
                return _end(running)
            *lines, told = (told + more).split(b"\n")
            for line in lines:
                with contextlib.suppress(ProcessLookupError):  # ended, and was waited for
                    descriptor = os.pidfd_open(int(line))
                    running[descriptor] = int(line)
                    looking.register(descriptor, select.POLLIN)


def _end(running: dict[int, int]) -> None:
    for descriptor, pid in running.items():
        _send(descriptor, pid, signal.SIGTERM)
    left = select.poll()
    for descriptor in running:
        left.register(descriptor, select.POLLIN)
    alive = set(running)
    while alive and (ended := left.poll(PATIENCE * 1000)):
        for descriptor, _ in ended:
            left.unregister(descriptor)
            alive.discard(descriptor)
    for descriptor in alive:
        _send(descriptor, running[descriptor], signal.SIGKILL)


def _send(descriptor: int, pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, 0)  # its id is still its own
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)


if __name__ == "__main__":
    watch()
