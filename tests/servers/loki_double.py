"""A Loki that takes what its push API's documentation says, and refuses the rest as it does.

Written from https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs. The real
one is under the AGPL and in no Debian.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
LONGEST_LINE = 256_000


@dataclass(frozen=True)
class Line:
    """A line that was taken."""

    labels: dict[str, str]
    nanoseconds: int
    text: str
    metadata: dict[str, str]

    @property
    def fields(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found


class LokiDouble:
    """A context manager that serves on a free port, the same after `refuse` and `accept`.

    Attributes:
        lines: what was taken, in the order in which it came.
        headers: of the last request.
        batches: how many requests were answered with 204.
        statuses: what the next requests are answered with instead, first come first.
        retry_after: told with these.
        going_on: cleared, it answers nobody until it is set.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.headers: dict[str, str] = {}
        self.batches = 0
        self.refused = 0
        self.statuses: list[int] = []
        self.retry_after: str | None = None
        self.going_on = threading.Event()
        self.going_on.set()
        self._changed = threading.Condition()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def wait(self, number: int, timeout: float = 30) -> list[Line]:
        """Return all lines once there are so many."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.lines) >= number, timeout)
            assert there, f"{len(self.lines)} of {number} lines have come"
            return list(self.lines)

    def accept(self) -> None:
        """Listen."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._server.daemon_threads = True
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def refuse(self) -> None:
        """Stop listening."""
        assert self._server is not None
        assert self._thread is not None
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        self.going_on.set()
        self.refuse()

    def take(self, path: str, body: bytes, kind: str) -> tuple[int, str]:
        """Return the status and the text of an answer."""
        self.going_on.wait()
        if path != "/loki/api/v1/push":
            return 404, "404 page not found"
        with self._changed:
            if self.statuses:
                return self.statuses.pop(0), "as told"
            try:
                found = list(_lines(json.loads(body), kind))
            except (KeyError, TypeError, ValueError, AssertionError) as error:
                self.refused += 1
                return 400, str(error)
            self.lines += found
            self.batches += 1
            self._changed.notify_all()
        return 204, ""


def _lines(document: Any, kind: str) -> Any:
    assert kind.partition(";")[0] == "application/json", "error parsing content type"
    for stream in document["streams"]:
        labels = stream["stream"]
        assert labels, "error at least one label pair is required per stream"
        for name, value in labels.items():
            assert _LABEL.match(name), f"invalid label {name}"
            assert isinstance(value, str), "Value is not a string"
        assert len(labels) <= 15, "stream has too many labels"
        for moment, text, *rest in stream["values"]:
            assert isinstance(moment, str), "the time must be a string of nanoseconds"
            assert isinstance(text, str), "a line must be a string"
            assert len(text.encode(errors="replace")) <= LONGEST_LINE, "line too long"
            metadata = rest[0] if rest else {}
            assert len(rest) <= 1
            assert all(isinstance(value, str) for value in metadata.values())
            yield Line(labels, int(moment), text, metadata)


def _handler(loki: LokiDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            loki.headers = {name.lower(): value for name, value in self.headers.items()}
            status, text = loki.take(self.path, body, self.headers.get("Content-Type", ""))
            self.send_response(status)
            if loki.retry_after is not None and status == 429:
                self.send_header("Retry-After", loki.retry_after)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler
