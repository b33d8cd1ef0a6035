"""Handing bytes to a connected socket at once."""

from __future__ import annotations

import ctypes
import socket

NO_FD = -1
"""A socket that this cannot be done with: TLS lies between."""

_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)

# It cannot block, and keeps the interpreter's lock, which threads fight over otherwise.
_send = ctypes.PyDLL(None).send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t


def send_now(fd: int, data: bytes) -> int:
    """Send what a socket takes without waiting; return how many bytes, 0 where there is an error.

    The transport that owns the socket meets the same error when it is given the rest.
    """
    sent: int = _send(fd, data, len(data), _FLAGS)
    return max(sent, 0)
