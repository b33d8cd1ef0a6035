"""SFTP's protocol over a channel of an SSH connection: many requests under way at once.

paramiko's own client answers one request after the other and knows one of OpenSSH's extensions.
This speaks version 3 (draft-ietf-secsh-filexfer-02, what OpenSSH and nearly every server speak)
with the extensions of OpenSSH's PROTOCOL file; any number of threads may use one session, and a
request need not be waited for before the next is sent.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import paramiko

from .errors import BackendConnectionError
from .sftp_answers import Refused, refusal, text_at
from .sftp_inbox import Inbox

INIT, VERSION = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = 3, 4, 5, 6, 7, 8, 9, 10
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME = 11, 12, 13, 14, 15, 16, 17, 18
EXTENDED = 200
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201

FOR_READING, FOR_WRITING, CREATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
"""Flags of OPEN."""

OK, END, NO_SUCH_FILE, DENIED, FAILURE, BAD_MESSAGE = 0, 1, 2, 3, 4, 5
NO_CONNECTION, CONNECTION_LOST, UNSUPPORTED = 6, 7, 8

POSIX_RENAME = b"posix-rename@openssh.com"
HARDLINK = b"hardlink@openssh.com"
FSYNC = b"fsync@openssh.com"
STATVFS = b"statvfs@openssh.com"
LIMITS = b"limits@openssh.com"
COPY_DATA = b"copy-data"

_DONE = struct.pack(">I", OK)

_VERSION = 3
_LARGEST_GREETING = 64 << 10

_PLAIN_PIECE = 32 * 1024
"""Bytes of a read or write that every server takes."""

_LARGEST_PIECE = 256 * 1024 - 1024
"""OpenSSH's: what its largest message leaves for data."""


class Limits(NamedTuple):
    """Bytes of the largest read and write."""

    read: int = _PLAIN_PIECE
    write: int = _PLAIN_PIECE


class Request:
    """A request under way.

    Attributes:
        with_it: the last of those that were sent together with it, whose answer comes last.
    """

    __slots__ = ("_done", "body", "error", "kind", "with_it")

    def __init__(self) -> None:
        self._done = threading.Lock()
        self._done.acquire()
        self.kind = 0
        self.body: memoryview = memoryview(b"")
        self.error: BackendConnectionError | None = None
        self.with_it: Request | None = None

    def settle(self) -> None:
        """Let the one who waits go on."""
        self._done.release()

    def settled(self, timeout: float) -> bool:
        """Wait for the answer; whether it came within `timeout` seconds."""
        if not self._done.acquire(timeout=timeout):
            return False
        self._done.release()
        return True

    @property
    def ready(self) -> bool:
        """Whether the answer is here, so that nothing waits for it."""
        return not self._done.locked()


class Session:
    """One SFTP session, on a channel that has its subsystem running.

    Attributes:
        limits: bytes of the largest read and write.
        extensions: what the server offers, with its data.
        opened: when it was opened, by the monotonic clock.
        reads_whole: reads up to `limits` are answered with as much as was asked for, where the file
            has it, as far as is known.
        stalled: it broke because the server fell silent, so the connection may be dead as well.

    Args:
        channel: taken over; `end` closes it.
        server: what messages call the server.
        timeout: seconds without a byte from the server, while an answer is due, after which the
            session counts as broken.

    Raises:
        BackendConnectionError: nobody at the other end speaks SFTP.
    """

    def __init__(self, channel: paramiko.Channel, server: str, timeout: float) -> None:
        self.server = server
        self.limits = Limits()
        self.extensions: dict[bytes, bytes] = {}
        self._channel = channel
        self._timeout = timeout
        self._pid = os.getpid()
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._held = threading.local()
        self._state = threading.Lock()
        self._waiting: dict[int, Request | None] = {}
        self._broken: BackendConnectionError | None = None
        self.opened = time.monotonic()
        self.stalled = False
        self.reads_whole = False
        channel.settimeout(timeout)
        try:
            self._greet()
        except BaseException:
            self._close_channel()
            raise
        self._inbox = Inbox(channel, server, self._take, self._fail)
        if LIMITS in self.extensions:
            self._ask_limits()

    def _greet(self) -> None:
        try:
            self._channel.sendall(struct.pack(">IBI", 5, INIT, _VERSION))
            (size,) = struct.unpack(">I", self._receive(4))
            packet = self._receive(size) if 1 <= size <= _LARGEST_GREETING else b"\0"
        except (OSError, paramiko.SSHException, EOFError) as error:
            raise self._lost(f"no SFTP server answers ({_reason(error)})") from error
        if packet[0] != VERSION or len(packet) < 5:
            raise self._lost("what answers is no SFTP server")
        at = 5
        while at < len(packet):
            name, at = text_at(packet, at)
            data, at = text_at(packet, at)
            self.extensions[name] = data

    def _ask_limits(self) -> None:
        try:
            reply = self.result(self.extended(LIMITS), EXTENDED_REPLY)
            _, read, write = struct.unpack_from(">QQQ", reply)
        except (Refused, struct.error):
            return
        self.reads_whole = True  # what else would a limit on reads be
        self.limits = Limits(*(min(size or _PLAIN_PIECE, _LARGEST_PIECE) for size in (read, write)))

    # -- asking

    def send(self, kind: int, *parts: bytes | memoryview) -> Request:
        """Send a request; `parts` are its fields as they go over the wire.

        Raises:
            BackendConnectionError: the connection is broken.
        """
        request = Request()
        self._send(kind, parts, request)
        return request

    def extended(self, name: bytes, *parts: bytes) -> Request:
        """Send a request of an extension."""
        return self.send(EXTENDED, text(name), *parts)

    def forget(self, kind: int, *parts: bytes) -> None:
        """Send a request whose answer nobody wants, if the connection still works."""
        try:
            self._send(kind, parts, None)
        except BackendConnectionError:
            return

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Send what this thread sends within the block at its end, in as few packets of SSH as it
        takes: each costs both sides as much as a request itself. Nothing may be waited for within.

        Raises:
            BackendConnectionError: the connection is broken.
        """
        pieces: list[bytes | memoryview] = []
        requests: list[Request] = []
        self._held.pieces, self._held.requests = pieces, requests
        try:
            yield
        finally:
            self._held.pieces = self._held.requests = None
            for request in requests[:-1]:
                request.with_it = requests[-1]
            if pieces:
                self._push_all([b"".join(pieces)])

    def _send(
        self, kind: int, parts: tuple[bytes | memoryview, ...], request: Request | None
    ) -> None:
        number = next(self._numbers) & 0xFFFFFFFF
        size = 5 + sum(map(len, parts))
        head = struct.pack(">IBI", size, kind, number)
        # A piece of a file is long and is not copied together with what goes before it.
        *short, last = (head, *parts)
        pieces: list[bytes | memoryview]
        pieces = [b"".join(short), last] if len(last) > 4096 else [b"".join((*short, last))]
        if self._pid != os.getpid():
            raise self._lost("it belongs to the process that this one was forked from")
        with self._state:
            if self._broken is not None:
                raise self._broken_again()
            if not self._waiting:
                self._inbox.heard = time.monotonic()
            self._waiting[number] = request
        held: list[bytes | memoryview] | None = getattr(self._held, "pieces", None)
        if held is not None:
            held += pieces
            if request is not None:
                self._held.requests.append(request)
            return
        self._push_all(pieces)

    def _push_all(self, pieces: Sequence[bytes | memoryview]) -> None:
        try:
            with self._sending:
                for piece in pieces:
                    self._push(piece)
        except TimeoutError as error:
            self.stalled = True
            self._fail(f"it took nothing for {self._timeout:g} s", error)
            raise self._broken_again() from error
        except (OSError, paramiko.SSHException, EOFError) as error:
            self._fail(_reason(error), error)
            raise self._broken_again() from error

    def _push(self, piece: bytes | memoryview) -> None:
        view = memoryview(piece)
        while view:
            count = self._channel.send(view)  # type: ignore[arg-type]  # any buffer will do
            if count == 0:
                raise EOFError("the server closed the session")
            view = view[count:]

    def wait(self, request: Request) -> None:
        """Wait for the answer to a request. To be woken once for all that were sent together costs
        less than once for each.

        Raises:
            BackendConnectionError: it will never come.
        """
        if request.with_it is not None and not request.ready:
            self._settled(request.with_it)
        self._settled(request)
        if request.error is not None:
            raise self._broken_again()

    def _settled(self, request: Request) -> None:
        while not request.settled(self._patience()):
            if self._silent():
                self.stalled = True
                self._fail(f"no answer for {self._timeout:g} s", None)

    def _patience(self) -> float:
        return max(self._inbox.heard + self._timeout - time.monotonic(), 0.01)

    def _silent(self) -> bool:
        return time.monotonic() - self._inbox.heard >= self._timeout

    def result(self, request: Request, kind: int) -> memoryview:
        """Return the body of an answer of that kind.

        Raises:
            Refused: the server said no.
            BackendConnectionError: the connection broke.
        """
        self.wait(request)
        if request.kind == kind:
            return request.body
        if request.kind == STATUS:
            raise refusal(request.body)
        raise self._lost(f"an answer of kind {request.kind} where {kind} was due")

    def done(self, request: Request) -> None:
        """Wait for a request that is answered by a status. Raises as `result` does."""
        self.wait(request)
        if request.kind != STATUS:
            raise self._lost(f"an answer of kind {request.kind} where a status was due")
        if request.body[:4] != _DONE:
            raise refusal(request.body)

    # -- listening

    @property
    def broken(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._broken is not None

    @property
    def under_way(self) -> int:
        """How many answers are due."""
        return len(self._waiting)

    def _take(self, packet: memoryview) -> None:
        """Hand an answer to the one who waits for it."""
        (number,) = struct.unpack_from(">I", packet, 1)
        with self._state:
            request = self._waiting.pop(number, None)
        if request is not None:
            request.kind = packet[0]
            request.body = packet[5:]
            request.settle()

    def _receive(self, size: int) -> bytes:
        """Return the next bytes of the greeting."""
        data = bytearray()
        while len(data) < size:
            part = self._channel.recv(size - len(data))
            if not part:
                raise EOFError("the server closed the session")
            data += part
        return bytes(data)

    # -- ending

    def _fail(self, reason: str, cause: Exception | None) -> None:
        """Break the session: everybody who waits gets the error."""
        with self._state:
            if self._broken is None:
                self._broken = self._lost(reason)
                self._broken.__cause__ = cause
            waiting, self._waiting = self._waiting, {}
        for request in waiting.values():
            if request is not None:
                request.error = self._broken
                request.settle()

    def end(self, *, farewell: bool = True) -> None:
        """Break the session and end its thread. Idempotent.

        Args:
            farewell: tell the server; False where the connection is closed already, or moves
                nothing any more.
        """
        self._fail("the session was closed", None)
        if farewell:
            self._close_channel()
        self._inbox.close()
        self._inbox.join()

    def _close_channel(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _lost(self, reason: str) -> BackendConnectionError:
        return BackendConnectionError(f"{self.server}: the connection broke: {reason}")

    def _broken_again(self) -> BackendConnectionError:
        """Return what broke the session, as an exception that is not shared among threads."""
        broken = self._broken
        error = BackendConnectionError(*(broken.args if broken else ()))
        error.__cause__ = broken.__cause__ if broken else None
        return error


def text(data: bytes) -> bytes:
    """Return a string as the wire has it."""
    return struct.pack(">I", len(data)) + data


def number(value: int) -> bytes:
    """Return a number of 32 bits as the wire has it."""
    return struct.pack(">I", value)


def long(value: int) -> bytes:
    """Return a number of 64 bits as the wire has it."""
    return struct.pack(">Q", value)


def permissions(mode: int) -> bytes:
    """Return attributes that set the permission bits only."""
    return struct.pack(">II", 0x04, mode)


NO_ATTRIBUTES = struct.pack(">I", 0)


def times(atime: int, mtime: int) -> bytes:
    """Return attributes that set the times only, in seconds since the epoch."""
    return struct.pack(">III", 0x08, atime, mtime)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
