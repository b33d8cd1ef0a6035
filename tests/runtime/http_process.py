"""The HTTP host as a process of its own, and a client that speaks in raw bytes."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.child import Child

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds; a test that waits longer fails


class HostProcess:
    """A running host; `addresses` are those of its start lines."""

    def __init__(self, options: Any, argument: Mapping[str, Any] | None = None) -> None:
        asked = json.dumps({"options": options, "argument": dict(argument or {})})
        self.process = Child(
            [sys.executable, "-m", "tests.runtime.http_app", asked],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.lines: list[str] = []
        self.addresses: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                if line.startswith("start server on "):
                    self.addresses.append(line.split()[-1])
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, text: str) -> str:
        """Wait until standard error has a line that contains `text`."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, PATIENCE)
            assert found(), f"no line with {text!r} in {self.lines}"
            return found()[0]

    def __enter__(self) -> HostProcess:
        try:
            self.wait_for("start server on ")
        except BaseException:
            self.process.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return int(self.addresses[0].rpartition(":")[2])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and return the exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.wait()
        except BaseException:
            self.process.end()
            raise
        finally:
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()

    def memory(self, field: str = "VmRSS") -> int:
        """Return a size from /proc/PID/status in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(
            int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field)
        )

    def children(self) -> list[int]:
        """Return the worker processes."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            if parent == self.process.pid and b"resource_tracker" not in command:
                found.append(int(entry))
        return sorted(found)

    def connect(self) -> Wire:
        return Wire(socket.create_connection(("127.0.0.1", self.port), PATIENCE))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection of which the test sees every byte."""

    def __init__(self, sock: socket.socket | ssl.SSLSocket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.buffer = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def request(
        self, method: str, target: str, headers: str = "", body: bytes = b"", *, length: bool = True
    ) -> Answer:
        """Send a request and read its answer."""
        size = f"Content-Length: {len(body)}\r\n" if length and (body or method == "POST") else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: t\r\n{size}{headers}\r\n"
        self.send(head.encode("latin-1") + body)
        return self.answer(head_only=method == "HEAD")

    def _more(self) -> bool:
        data = self.sock.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def _take(self, size: int, skip: int = 0) -> bytes:
        taken = bytes(self.buffer[:size])
        del self.buffer[: size + skip]
        return taken

    def read_until(self, text: bytes) -> None:
        """Read until what was received contains `text`."""
        while text not in self.buffer:
            assert self._more(), f"the connection ended: {bytes(self.buffer)!r}"

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read one answer."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                raise EOFError(f"the connection ended in a head: {self.buffer!r}")
        head = self._take(self.buffer.index(b"\r\n\r\n"), 4)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name not in headers, f"{name} twice"
            headers[name] = value
        status = int(first.split()[1])
        body = b""
        if not head_only and status >= 200:
            body = self._chunks() if "transfer-encoding" in headers else self._sized(headers)
        return Answer(status, headers, body)

    def _sized(self, headers: dict[str, str]) -> bytes:
        size = int(headers.get("content-length", "-1"))
        while size < 0 or len(self.buffer) < size:
            if not self._more():
                if size < 0:
                    size = len(self.buffer)
                    break
                raise EOFError(f"the connection ended in a body: {self.buffer[:200]!r}")
        return self._take(size)

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self.buffer:
                assert self._more(), "the connection ended in a chunk"
            length = int(self._take(self.buffer.index(b"\r\n"), 2), 16)
            while len(self.buffer) < length + 2:
                assert self._more(), "the connection ended in a chunk"
            body += self._take(length, 2)
            if not length:
                return body

    def rest(self) -> bytes:
        """Read to the end of the connection; a reset is an end."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            return bytes(self.buffer)
        return bytes(self.buffer)


def wait_for_line(path: Path, text: str) -> str:
    """Wait until a line of a log contains `text`; lines come in batches."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for line in path.read_text().splitlines():
            if text in line:
                return line
        time.sleep(0.05)
    raise AssertionError(f"no line with {text!r} in {path.read_text()}")


@contextmanager
def trickle(wire: Wire, data: bytes, every: float) -> Iterator[threading.Event]:
    """Send one byte at a time from another thread until told to stop."""
    stop = threading.Event()

    def run() -> None:
        for index in range(len(data)):
            if stop.wait(every):
                return
            try:
                wire.sock.send(data[index : index + 1])
            except OSError:
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
