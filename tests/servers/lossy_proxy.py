"""A TCP proxy that hands requests on whole, and loses some of the answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class LossyProxy:
    """Listens on a port of 127.0.0.1 of its own. A context manager.

    Of the answers to uploads, every `nth` is lost: the server has done its work, and the client's
    connection ends without a byte of it.

    Attributes:
        port: where clients connect.
        lost: how many answers were lost.
    """

    def __init__(self, port: int, nth: int) -> None:
        self._target = port
        self._nth = nth
        self._uploads = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lost = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Closing alone would not wake who waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                to_lose = threading.Event()
                ways = (self._upward, self._downward)
                for way in ways:
                    threading.Thread(
                        target=way, args=(client, server, to_lose), daemon=True
                    ).start()

    def _upward(
        self, client: socket.socket, server: socket.socket, to_lose: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 18):
                # restic waits for each answer before the next request on a connection, so a
                # request begins with a read.
                if data.startswith(b"POST ") and b"/data/" in data[:200]:
                    with self._lock:
                        self._uploads += 1
                        if self._uploads % self._nth == 0:
                            to_lose.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _downward(
        self, client: socket.socket, server: socket.socket, to_lose: threading.Event
    ) -> None:
        with client, server, contextlib.suppress(OSError):
            while data := server.recv(1 << 18):
                if to_lose.is_set():
                    self.lost += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)
