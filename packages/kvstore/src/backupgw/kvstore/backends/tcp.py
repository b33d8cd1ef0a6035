"""TCP connections that notice when their peer is gone."""

from __future__ import annotations

import socket


def keep_alive(sock: socket.socket, *, unheard: float | None = None) -> None:
    """Have the system ask a silent peer whether it is still there.

    Args:
        unheard: seconds after which the connection breaks when the peer takes nothing of what was
            sent to it; None leaves that to the system, which waits for a quarter of an hour.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    if unheard is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unheard * 1000))
