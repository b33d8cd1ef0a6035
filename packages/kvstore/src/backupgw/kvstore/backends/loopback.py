"""An address of this machine at which a person's browser brings the answer to a grant (RFC 8252,
7.3): one port of 127.0.0.1, chosen by the system, for as long as the answer is waited for.

Any program here, and any page in a browser, can ask it something. So only an answer that the grant
knows for its own, by the state that was sent along, counts; and a code alone is of no use to who
overhears it (PKCE).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

_LONGEST = 16 << 10
"""Bytes of a request's head."""
_PATIENCE = 5.0
"""Seconds in which a browser that has connected says what it wants."""

_DONE = "Thank you. You can close this page, and go on where you began."
_NOTHING = "There is nothing here."


class Loopback:
    """Listens. A context manager; to be waited for by `select`.

    Attributes:
        address: where the browser is to be sent.
    """

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"

    def fileno(self) -> int:
        """The socket that becomes readable when somebody comes."""
        return self._socket.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def answer(self, is_answer: Callable[[str], bool]) -> str | None:
        """Hear whoever has come; return the address that was asked for if it is the answer.

        Args:
            is_answer: whether an address is.
        """
        with contextlib.suppress(OSError):
            peer, _ = self._socket.accept()
            with peer:
                peer.settimeout(_PATIENCE)
                target = self._target(peer)
                found = None if target is None else self.address + target.removeprefix("/")
                mine = found is not None and is_answer(found)
                peer.sendall(_page("200 OK", _DONE) if mine else _page("404 Not Found", _NOTHING))
                return found if mine else None
        return None

    def _target(self, peer: socket.socket) -> str | None:
        """Return what a request asks for, None where it is not a browser's that was sent here."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = peer.recv(_LONGEST)
            head += piece
            if not piece or len(head) > _LONGEST:
                return None
        first, *lines = head.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
        hosts = [line[5:].strip() for line in lines if line[:5].lower() == "host:"]
        words = first.split(" ")
        if len(words) != 3 or words[0] != "GET" or f"http://{''.join(hosts)}/" != self.address:
            return None
        return words[1]


def _page(status: str, text: str) -> bytes:
    body = f"<!doctype html><meta charset=utf-8><title>backupgw</title><p>{text}</p>\n".encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
        "Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n"
    ).encode() + body
