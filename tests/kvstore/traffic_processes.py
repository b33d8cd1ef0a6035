"""Processes that come from one which has imported all they need.

    python -m tests.kvstore.traffic_processes MODULE SOCKET

A test that kills hundreds of gateways would spend most of its time on their imports. So one process
imports MODULE and forks for each request: another that starts the gateway (MODULE's `main`, with
the request's arguments) and says how it ended. The gateway itself has nothing of its
forerunner's but the modules: no connection, no thread and no lock.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from tests.servers.child import Child

ROOT = Path(__file__).parents[2]


class Traffic:
    """One gateway's process.

    Attributes:
        pid: its number.
        stdout: what it prints.
        returncode: how it ended; -SIGNAL where it was killed, None before `wait`.
    """

    def __init__(self, pid: int, stdout: int, ending: int) -> None:
        self.pid = pid
        self.stdout = os.fdopen(stdout, "rb")
        self.returncode: int | None = None
        self._ending = os.fdopen(ending, "rb", buffering=0)
        self._itself = os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended
            signal.pidfd_send_signal(self._itself, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Wait until it has ended; returns `returncode`."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(int(self._ending.read(16)))
        return self.returncode

    def communicate(self) -> bytes:
        """Return the rest of what it prints; it has ended then."""
        output = self.stdout.read()
        self.wait()
        return output

    def close(self) -> None:
        self.kill()
        self.wait()
        os.close(self._itself)
        self._ending.close()
        self.stdout.close()


class Forerunner:
    """The process that has imported a module."""

    def __init__(self, module: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = Child(
                [sys.executable, "-m", __spec__.name, module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )

    @contextmanager
    def running(self, arguments: Sequence[str]) -> Iterator[Traffic]:
        """Yield a gateway's process; it is killed if it has not ended."""
        reading, printing = os.pipe()
        ending, saying = os.pipe()
        socket.send_fds(self._socket, [json.dumps(arguments).encode()], [printing, saying])
        os.close(printing)
        os.close(saying)
        process = Traffic(int(os.read(ending, 16)), reading, ending)
        try:
            yield process
        finally:
            process.close()


@cache
def forerunner(module: str) -> Forerunner:
    """Return the one of a module, which ends with this process."""
    return Forerunner(module)


def _serve(main: Callable[[Sequence[str]], int], requests: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 16, 2)
        if not message:
            return  # who asked has ended
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _watch(main, json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(
    main: Callable[[Sequence[str]], int], arguments: Sequence[str], printing: int, saying: int
) -> None:
    """Start the gateway and tell its number, and in the end how it ended."""
    pid = os.fork()
    if pid == 0:
        os.close(saying)
        os.dup2(printing, 1)
        os.close(printing)
        code = 1
        try:
            code = main(arguments)
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001 - it is the last that this process does
            traceback.print_exc()
        os._exit(code)
    os.close(printing)
    os.write(saying, b"%16d" % pid)
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(saying, b"%16d" % status)
    os._exit(0)


if __name__ == "__main__":
    _serve(importlib.import_module(sys.argv[1]).main, socket.socket(fileno=int(sys.argv[2])))
