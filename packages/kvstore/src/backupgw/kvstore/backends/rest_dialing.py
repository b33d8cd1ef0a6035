"""How a borgstore server is reached: over TCP, TLS or a command's standard streams.

Only the sockets of these connections are used: what goes over them is `rest_wire`'s.
"""

from __future__ import annotations

import collections
import logging
import signal
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

from . import unreached
from .rest_wire import BLOCK
from .tcp import keep_alive

logger = logging.getLogger(__name__)

FAREWELL = 5.0
"""Seconds that a command may take to end once its input is closed."""

Dial = Callable[[float], HTTPConnection]
"""Makes a connection object, not yet connected, with a time-out in seconds."""


def wait_at_most(sock: socket.socket, seconds: float) -> None:
    """Let calls on a connected socket that wait longer fail with an OSError (see `reason_of`).

    The system watches the time where it can. Python's own time-outs cost a poll(2) before each
    call, which a small request notices.
    """
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)  # OpenSSL would take the system's for a call to be repeated
        return
    whole, fraction = divmod(seconds, 1)
    at_most = struct.pack("@ll", int(whole), int(fraction * 1e6))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, at_most)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, at_most)
    except OSError:  # its struct timeval is another one
        sock.settimeout(seconds)
    else:
        sock.settimeout(None)


def reason_of(error: Exception) -> str:
    """Return what broke a connection, in words."""
    if isinstance(error, BlockingIOError):
        return "timed out"
    if isinstance(error, ssl.SSLError):
        return unreached.reason_of(error)
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error) or type(error).__name__


class TcpConnection(HTTPConnection):
    """A connection that notices when its peer is gone; the arguments are those of its base."""

    def __init__(self, host: str, port: int | None, **more: Any) -> None:
        # Without a port, the end of an IPv6 address would be taken for it.
        super().__init__(host, port or self.default_port, **more)

    def connect(self) -> None:
        super().connect()
        keep_alive(self.sock)
        wait_at_most(self.sock, float(self.timeout or 0))


class TlsConnection(HTTPSConnection):
    """The same with TLS."""

    def __init__(self, host: str, port: int | None, **more: Any) -> None:
        super().__init__(host, port or self.default_port, **more)

    def connect(self) -> None:
        super().connect()
        keep_alive(self.sock)


class ProgramConnection(HTTPConnection):
    """A connection to a program of this machine.

    Attributes:
        program: its name.
    """

    program: str

    def said(self) -> str:
        """Return what the program last said, for messages."""
        return ""


class CommandConnection(ProgramConnection):
    """A connection to a server that runs as a command and speaks on its standard streams.

    The command gets both ends of its conversation as one socket, and Ctrl-C does not reach it:
    it must outlast the interrupted program's last requests.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        super().__init__("stdio", timeout=timeout, blocksize=BLOCK)
        self._command = list(command)
        self.program = self._command[0]
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: collections.deque[str] = collections.deque(maxlen=10)
        self._listener: threading.Thread | None = None

    def connect(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                end = theirs.fileno()
                self._process = subprocess.Popen(
                    self._command, stdin=end, stdout=end, stderr=subprocess.PIPE
                )
            except BaseException:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        wait_at_most(ours, float(self.timeout or 0))
        self.sock = ours

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                self._lines.append(text)
                logger.debug("%s: %s", self.program, text)

    def close(self) -> None:
        super().close()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._listener is not None:
            self._listener.join(FAREWELL)  # a grandchild may hold the stream open

    def said(self) -> str:
        """Return what the command last wrote to its standard error."""
        return " / ".join(self._lines)
