"""What comes to a port with TLS, until its handshake is done.

A socket whose handshake failed is closed by the event loop without a word, and its client tries
again for as long as it likes. So it is told in the log, now and then, who fails and why. Who speaks
plain HTTP is known by the first byte, and gets an answer that a person can read, as Go's server
gives one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from backupgw.runtime.http.dealing import AT_ONCE, NO_ROOM, accept_next
from backupgw.runtime.seldom import Seldom

logger = logging.getLogger(__name__)

PLAIN = (
    b"HTTP/1.0 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\n\r\nThis port speaks HTTPS only: write https:// in the URL.\n"
)

_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it has no client certificate, which tls_client_ca wants",
    "CERTIFICATE_VERIFY_FAILED": "its client certificate is none that tls_client_ca accepts",
    "UNSUPPORTED_PROTOCOL": "it speaks only versions of TLS older than tls_min_version",
    "NO_SHARED_CIPHER": "it has no cipher in common with this server",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed the certificate in tls_cert",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no version of TLS that is served",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the certificate in tls_cert",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "to it, the certificate in tls_cert has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the certificate in tls_cert",
}
_REASONS["TLSV1_ALERT_CERTIFICATE_UNKNOWN"] = _REASONS["SSLV3_ALERT_CERTIFICATE_UNKNOWN"]

_PAUSE = 1.0
"""Seconds until it is tried again to accept, after there was no room."""

_seldom = Seldom()


def _tell_of_failure(address: str, error: ssl.SSLError) -> None:
    """Log, now and then, that a client and we did not get on."""
    known = _REASONS.get(error.reason or "")
    reason = known or (error.reason or "it hung up").replace("_", " ").lower()
    more = _seldom.due((address, reason))
    if more is not None:
        level = logging.INFO if known is None else logging.WARNING  # whoever scans ports, say
        logger.log(level, "TLS with %s failed: %s%s", address, reason, more)


class TlsDoor:
    """Makes connections with TLS of sockets.

    Args:
        context: the server's.
        protocol: makes a connection's protocol.
        patience: seconds that a client may take until the handshake is done.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        patience: float,
    ) -> None:
        self._context = context
        self._protocol = protocol
        self._patience = patience

    async def enter(self, connection: socket.socket) -> None:
        """Make a connection of a socket that does not block.

        Raises:
            OSError: nothing came of it, and the log says why; the socket is the caller's.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        address = _address(connection)
        async with asyncio.timeout(self._patience):  # a TimeoutError is an OSError
            await _readable(connection)
        if connection.recv(1, socket.MSG_PEEK).isalpha():  # a method; TLS begins with 22
            _answer_plain(connection, address)
            raise ConnectionAbortedError("plain HTTP")
        try:
            await loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=max(0.1, begun + self._patience - loop.time()),
            )
        except ssl.SSLError as error:
            _tell_of_failure(address, error)
            raise


class TlsListener:
    """Accepts at one socket, for a server that accepts by itself; closed as uvicorn does."""

    def __init__(self, listener: socket.socket, door: TlsDoor) -> None:
        self._listener = listener
        self._door = door
        self._tasks: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(AT_ONCE):
            try:
                connection = accept_next(self._listener)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                loop.remove_reader(self._listener)
                loop.call_later(_PAUSE, self._listen)
                return
            if connection is None:
                return
            connection.setblocking(False)
            task = loop.create_task(self._enter(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _enter(self, connection: socket.socket) -> None:
        try:
            await self._door.enter(connection)
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):  # of TLS, too
                raise

    def close(self) -> None:
        """Accept nothing more, and let go of who has not come in."""
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when nobody is left at the door."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)


def _answer_plain(connection: socket.socket, address: str) -> None:
    more = _seldom.due((address, "plain"))
    if more is not None:
        logger.warning(
            "%s speaks plain HTTP to a port with TLS: its URL needs https://%s", address, more
        )
    with contextlib.suppress(OSError):
        # What has come is read: a socket that is closed with unread bytes resets, and the reset
        # can overtake the answer.
        connection.recv(1 << 16)
        connection.send(PLAIN)
        connection.shutdown(socket.SHUT_WR)


def _address(connection: socket.socket) -> str:
    with contextlib.suppress(OSError):
        return str(connection.getpeername()[0]).removeprefix("::ffff:")
    return "a client"
