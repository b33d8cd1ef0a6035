"""An HTTP server that answers as a script says, broken answers included."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Request:
    """What a client asked. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What it is answered.

    Attributes:
        cut: bytes of the whole answer after which the connection is reset; None sends it all.
        close: hang up after the answer without having said so.
        early: answer once the head is read, and hang up on the body.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    close: bool = False
    early: bool = False

    def encode(self, method: str) -> bytes:
        headers = {"Content-Length": str(len(self.body)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body = b"" if method == "HEAD" else self.body
        return f"HTTP/1.1 {self.status} X\r\n{head}\r\n".encode() + body


Answerer = Callable[[Request], Reply]


class ScriptedServer:
    """Answers requests with the script's replies in turn, whatever connection they come by.

    A request past the script's end is answered with 500. Attributes: `requests`, all that came.
    """

    def __init__(self, script: Sequence[Reply | Answerer]) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._script = [*script]
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                break
            self.connections += 1
            self._open.append(sock)
            threads.append(threading.Thread(target=self._converse, args=(sock,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(10)

    def _converse(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream, contextlib.suppress(OSError):
            while line := stream.readline():
                method, target, _ = line.decode().split()
                headers = {}
                while (line := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                reply = self._next()
                early = isinstance(reply, Reply) and reply.early
                body = b"" if early else stream.read(int(headers.get("content-length", 0)))
                request = Request(method, target, headers, body)
                self.requests.append(request)
                answer = reply if isinstance(reply, Reply) else reply(request)
                data = answer.encode(method)
                sock.sendall(data if answer.cut is None else data[: answer.cut])
                if answer.cut is not None or answer.close or answer.early:
                    return

    def _next(self) -> Reply | Answerer:
        with self._lock:
            return self._script.pop(0) if self._script else Reply(500, b"the script has ended")
