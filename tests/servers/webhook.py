"""An HTTP server that takes webhooks: it notes what it is sent and answers as it is told."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Delivery(NamedTuple):
    """A request as it came; names of headers are lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class WebhookReceiver:
    """Answers with `statuses` one after the other, then always with the last of them."""

    def __init__(self, statuses: Sequence[int] = (204,)) -> None:
        self.deliveries: queue.Queue[Delivery] = queue.Queue()
        self._statuses = list(statuses)
        self._turn = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver._turn:
                    status = receiver._statuses[0]
                    if len(receiver._statuses) > 1:
                        del receiver._statuses[0]
                    receiver.deliveries.put(Delivery(self.path, headers, body))
                # Who asked may have given up.
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def next(self) -> Delivery:
        """Wait for the next request. Raises queue.Empty after 30 seconds."""
        return self.deliveries.get(timeout=30)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()
