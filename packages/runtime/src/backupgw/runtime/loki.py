"""Log records sent to a Grafana Loki, beside standard error.

What is logged is put into a queue of bounded size, and a thread of its own sends it in batches over
Loki's push API (`POST /loki/api/v1/push`, JSON). Nobody who logs waits: while Loki is away or slow
records are kept as long as they fit, and sent later with the time at which they were made; what
does not fit, what Loki refuses and what a stop leaves no time for is lost, and counted.

Labels name streams, and Loki wants few of those. So what has many values, a folder's id above all,
is structured metadata of its line, not a label.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

PATH = "/loki/api/v1/push"
STREAM = ("level", "backend", "operation")
"""Fields of a record that name its stream: each has few values."""
METADATA = ("vfolder_id", "request_id", "logger")
"""Fields that are structured metadata: they can be filtered by, and name no stream."""
BATCH = 1000
BATCH_BYTES = 1 << 20
LONGEST_LINE = 128 << 10
"""Bytes of a line; Loki's own limit is 256 KB for each, what it is sent as included."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
FAREWELL = 3.0
"""Seconds that a process which ends gives what it has not sent yet."""
_NOT_NOW = frozenset({408, 425, 429})

Count = Callable[[str, int], None]
"""Told of a result and how many records had it: sent, overflow, refused, unsent."""


@dataclass(frozen=True)
class Loki:
    """Where records go. Everything here may be secret.

    Attributes:
        url: `http://HOST:3100`, or the whole address of the push API.
        headers: more of them, such as Authorization and X-Scope-OrgID.
        labels: of all streams.
        metadata: whether Loki takes structured metadata (2.9 and newer, where it is allowed).
        ca_file: certificates to trust instead of the system's.
        queue: bytes of records that are kept while they cannot be sent.
        interval: seconds that a record may wait for others.
        timeout: seconds that Loki may take for a batch.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: bool = True
    ca_file: str | None = None
    queue: int = 16 << 20
    interval: float = 1.0
    timeout: float = 10.0


class _Refused(Exception):
    """Loki will never take this batch."""


class _NotNow(Exception):
    """Loki may take it later; not before `after` seconds, where it said so."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


Entry = tuple[int, str]
"""A record: nanoseconds since 1970, and its line, a JSON object."""


class LokiHandler(logging.Handler):
    """Sends what its formatter makes of records, which must be a JSON object a line.

    Raises:
        OSError: `ca_file` cannot be read or holds no certificates.
    """

    def __init__(self, loki: Loki, count: Count | None = None) -> None:
        super().__init__()
        self._loki = loki
        self._count = count or _counted
        self._sender = Sender(loki)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Entry] = deque()
        self._size = 0
        self._lost = 0
        self._end: float | None = None
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="loki", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; never waits."""
        try:
            line = self.format(record)
            if len(line) > LONGEST_LINE:
                line = _shortened(line)
        except Exception:  # noqa: BLE001 - as every handler: what cannot be told ends nobody
            self.handleError(record)
            return
        with self._lock:
            if self._end is not None or self._size + len(line) > self._loki.queue:
                self._lost += 1
                return
            self._waiting.append((int(record.created * 1e9), line))
            self._size += len(line)
            if len(self._waiting) in (1, BATCH):
                self._changed.notify()

    def close(self) -> None:
        """Send what can be sent within FAREWELL seconds. Idempotent."""
        super().close()
        if self._process != os.getpid():
            return  # a copy in a child has no thread
        with self._lock:
            if self._end is None:
                self._end = time.monotonic() + FAREWELL
            self._changed.notify()
        self._thread.join(FAREWELL)

    # -- in the thread

    def _run(self) -> None:
        wait = FIRST_WAIT
        away = False
        while (batch := self._take()) is not None:
            if not batch:
                continue
            try:
                self._sender.send(batch)
            except _NotNow as reason:
                if not away:
                    away = True
                    logger.warning("Loki takes no records for now: %s", reason)
                if not self._put_back(batch, max(wait * random.uniform(0.5, 1.0), reason.after)):  # noqa: S311
                    break
                wait = min(wait * 2, LONGEST_WAIT)
                continue
            except _Refused as reason:
                self._count("refused", len(batch))
                logger.warning("Loki has refused %d records: %s", len(batch), reason)
            except Exception:  # whatever these records do, those after them are sent
                self._count("refused", len(batch))
                logger.exception("%d records cannot be written for Loki", len(batch))
            else:
                self._count("sent", len(batch))
            if away:
                away = False
                logger.info("Loki takes records again")
            wait = FIRST_WAIT
        self._sender.close()
        with self._lock:
            left, self._lost = len(self._waiting) + self._lost, 0
        if left:
            self._count("unsent", left)

    def _take(self) -> list[Entry] | None:
        """Return what is to be sent next; None: nothing more will come."""
        with self._lock:
            while not self._waiting and self._end is None:
                self._changed.wait()
            if len(self._waiting) < BATCH and self._end is None:
                self._changed.wait(self._loki.interval)
            batch: list[Entry] = []
            size = 0
            while self._waiting and len(batch) < BATCH and size < BATCH_BYTES:
                entry = self._waiting.popleft()
                size += len(entry[1])
                batch.append(entry)
            self._size -= size
            lost, self._lost = self._lost, 0
            ended = self._end is not None
        if lost:
            self._count("overflow", lost)
        return None if ended and not batch else batch

    def _put_back(self, batch: Sequence[Entry], wait: float) -> bool:
        """Keep a batch for later, and wait; return whether there is a later."""
        with self._lock:
            self._waiting.extendleft(reversed(batch))
            self._size += sum(len(line) for _, line in batch)
            until = time.monotonic() + wait
            while True:
                now = time.monotonic()
                if self._end is not None and min(until, self._end) >= self._end:
                    return False
                if now >= until:
                    return True
                # Somebody who queues wakes us as well; only an end is of interest here.
                self._changed.wait(until - now)


class Sender:
    """Sends batches over one connection, kept open between them."""

    def __init__(self, loki: Loki) -> None:
        parts = urlsplit(loki.url)
        self._loki = loki
        self._parts = parts
        self._path = parts.path if parts.path not in ("", "/") else PATH
        self._tls = (
            ssl.create_default_context(cafile=loki.ca_file) if parts.scheme == "https" else None
        )
        self._connection: HTTPConnection | None = None

    def send(self, batch: Sequence[Entry]) -> None:
        """Send records. Raises _NotNow or _Refused."""
        # In ASCII: a line may hold names that are not UTF-8.
        body = json.dumps(self.document(batch), separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", **self._loki.headers}
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            told = answer.read(4096).decode(errors="replace")
        except (OSError, HTTPException) as error:
            self.close()
            raise _NotNow(type(error).__name__) from error
        if answer.status // 100 == 2:
            return
        self.close()
        reason = f"HTTP {answer.status}"
        if answer.status >= 500 or answer.status in _NOT_NOW:
            raise _NotNow(reason, _seconds(answer.headers.get("Retry-After")))
        raise _Refused(f"{reason}, {' '.join(told.split())[:200]}")

    def document(self, batch: Sequence[Entry]) -> dict[str, Any]:
        """Return the push API's document of some records."""
        streams: dict[tuple[tuple[str, str], ...], list[list[Any]]] = {}
        for moment, line in batch:
            fields = json.loads(line)
            named = tuple((key, str(fields[key])) for key in STREAM if fields.get(key) is not None)
            value: list[Any] = [str(moment), line]
            if self._loki.metadata:
                there = {key: str(fields[key]) for key in METADATA if fields.get(key) is not None}
                if there:
                    value.append(there)
            streams.setdefault(named, []).append(value)
        return {
            "streams": [
                {"stream": {**self._loki.labels, **dict(named)}, "values": values}
                for named, values in streams.items()
            ]
        }

    def close(self) -> None:
        """Hang up; the next batch connects anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._tls is not None:
            return HTTPSConnection(host, port, timeout=self._loki.timeout, context=self._tls)
        return HTTPConnection(host, port, timeout=self._loki.timeout)


def basic(user: str, password: str) -> str:
    """Return the value of an Authorization header."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _shortened(line: str) -> str:
    """Return a line of which the longest text is cut, still a JSON object."""
    fields = json.loads(line)
    longest = max(fields, key=lambda name: len(str(fields[name])))
    fields[longest] = f"{str(fields[longest])[: LONGEST_LINE // 8]} …"
    shorter = json.dumps(fields, ensure_ascii=False)
    if len(shorter) <= LONGEST_LINE:
        return shorter
    kept = {name: fields[name] for name in ("timestamp", *STREAM, *METADATA) if name in fields}
    return json.dumps({**kept, "event": "a record that was too long to be sent"})


def _seconds(text: str | None) -> float:
    try:
        return min(max(0.0, float(text or 0)), 10 * LONGEST_WAIT)
    except ValueError:
        return 0.0  # a date: our own schedule is as good


def _counted(result: str, number: int) -> None:
    # A process that serves nothing never loads prometheus_client.
    metrics = sys.modules.get("backupgw.runtime.metrics")
    if metrics is not None:
        metrics.counter(
            "backupgw_log_pushed_records_total",
            "Log records for Loki: sent, or lost: overflow, refused, unsent (at a process's end).",
            ("result",),
        ).add(number, result)
