"""One conversation on standard input and output, as a client over ssh has it.

The host serves a socket. Where standard input and output are pipes, two threads carry the bytes
between them and a pair of sockets.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from typing import BinaryIO

PIECE = 256 << 10


class Conversation:
    """Standard input and output as one socket. They belong to it from then on.

    Attributes:
        sock: what the server reads from and writes to.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        if _one_socket():
            self.sock = socket.socket(fileno=os.dup(0))
            return
        self.sock, ours = socket.socketpair()
        source, sink = sys.stdin.buffer, sys.stdout.buffer
        self._threads = [
            threading.Thread(target=_read, args=(source, ours), daemon=True),
            threading.Thread(target=_write, args=(ours, sink)),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Wait until everything that was answered is written."""
        self.sock.close()
        for thread in self._threads[1:]:
            thread.join()


def _one_socket() -> bool:
    first, second = os.fstat(0), os.fstat(1)
    same = (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
    return same and stat.S_ISSOCK(first.st_mode)


def _read(source: BinaryIO, ours: socket.socket) -> None:
    try:
        while data := os.read(source.fileno(), PIECE):
            ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
    except OSError:
        ours.close()  # the server has ended the conversation


def _write(ours: socket.socket, sink: BinaryIO) -> None:
    try:
        while data := ours.recv(PIECE):
            sink.write(data)
            sink.flush()
    except (BrokenPipeError, ConnectionError):
        ours.close()  # the client is gone; the server finds out by its socket
