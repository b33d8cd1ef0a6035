"""The access log: Apache's combined format, or JSON, one line a request.

A request costs the event loop one formatted line; a thread of its own writes the lines, so that a
slow disk or a stopped reader of a pipe delays no client. Several workers append to one file:
every write is whole lines in one call on an O_APPEND descriptor. What a query string carries
(tokens) never gets here, and no control character of a client does.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import select
import stat
import threading
import time
from functools import lru_cache
from typing import Literal

from backupgw.runtime.http.errors import HostError
from backupgw.runtime.http.state import Finished

logger = logging.getLogger(__name__)

BATCH = 512  # lines handed over at once when many come
BACKLOG = 200_000  # lines; when the writer is that far behind, lines are dropped and counted
UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')
PLAIN_TARGET = re.compile(rb"/[\w/.+~-]*\Z", re.ASCII)
"""Targets that are shown as they are, which nearly all are."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return f"\\{character}" if character in '"\\' else f"\\x{ord(character):02x}"


def quoted(value: bytes | str) -> str:
    """Return `value` such that it can stand between quotes: Apache's escapes."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return UNSAFE.sub(_escape, text) if UNSAFE.search(text) else text


def without_query(target: bytes) -> bytes:
    """Return a request target with its query string, which may carry tokens, cut out."""
    if target.startswith(b"/") and b"?" not in target:
        return target
    path, mark, _ = target.partition(b"?")
    scheme, separator, rest = path.partition(b"://")
    if separator and b"@" in rest.partition(b"/")[0]:  # user:password of an absolute target
        path = scheme + b"://..." + rest[rest.index(b"@") :]
    return path + b"?..." if mark else path


@lru_cache(maxsize=64)
def _quoted_header(value: bytes) -> str:
    """What a header is in a line: a client sends the same ones with each request."""
    return quoted(value) or "-"


@lru_cache(maxsize=1024)
def _shown_user(user: str) -> str:
    # A user's name stands outside quotes: a space in it would shift the columns.
    return quoted(user).replace(" ", "\\x20")


def _header(request: Finished, wanted: bytes) -> bytes:
    for name, value in request.headers:
        if name == wanted:
            return value
    return b""


class LineFormat:
    """Formats lines; keeps the date of the current second."""

    def __init__(self) -> None:
        self._second = 0
        self._combined = ""
        self._iso = ""

    def _date(self, now: int) -> None:
        self._second = now
        local = time.localtime(now)
        sign, offset = ("-" if local.tm_gmtoff < 0 else "+"), abs(local.tm_gmtoff) // 60
        zone = f"{sign}{offset // 60:02}{offset % 60:02}"
        # Not strftime: the month's name must not depend on the locale.
        clock = f"{local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02}"
        month = MONTHS[local.tm_mon - 1]
        self._combined = f"{local.tm_mday:02}/{month}/{local.tm_year}:{clock} {zone}"
        day = f"{local.tm_year}-{local.tm_mon:02}-{local.tm_mday:02}"
        self._iso = f"{day}T{clock}{zone[:3]}:{zone[3:]}"

    def combined(self, request: Finished) -> str:
        """Apache's combined log format (mod_log_config), as rest-server writes it."""
        now = int(time.time())
        if now != self._second:
            self._date(now)
        if request.http_version:
            target = request.target
            shown = target.decode() if PLAIN_TARGET.match(target) else quoted(without_query(target))
            line = f"{request.method} {shown} HTTP/{request.http_version}"
        else:
            line = "-"
        referer, agent = "-", "-"
        for header, value in request.headers:
            if header == b"user-agent":
                agent = _quoted_header(value)
            elif header == b"referer":
                referer = quoted(without_query(value)) or "-"
        user = request.user
        return (
            f"{request.client or '-'} - {_shown_user(user) if user else '-'} [{self._combined}] "
            f'"{line}" {request.status} {request.sent or "-"} "{referer}" "{agent}"\n'
        )

    def json(self, request: Finished) -> str:
        """One JSON object; sizes in bytes, `seconds` from the head to the end of the answer."""
        now = int(time.time())
        if now != self._second:
            self._date(now)
        record = {
            "time": self._iso,
            "client": request.client,
            "user": request.user,
            "method": request.method,
            "target": without_query(request.target).decode("latin-1"),
            "http": request.http_version,
            "status": request.status,
            "sent": request.sent,
            "received": request.received,
            "seconds": round(request.seconds, 6),
            "referer": without_query(_header(request, b"referer")).decode("latin-1"),
            "user_agent": _header(request, b"user-agent").decode("latin-1"),
        }
        return json.dumps(record, separators=(",", ":")) + "\n"


class AccessLog:
    """An open access log. `add` is called for each request, `flush` a few times a second."""

    def __init__(self, path: str, style: Literal["combined", "json"] = "combined") -> None:
        """Open the log and start its thread.

        Args:
            path: a file, made with mode 0600 where it does not exist, or `-`: standard output.
            style: the format of the lines.

        Raises:
            HostError: the file cannot be opened.
        """
        lines = LineFormat()
        self._format = lines.json if style == "json" else lines.combined
        self._path = path
        self._fd = self._open()
        self._lines: list[str] = []
        # Two counters, each written by one thread only.
        self._handed = 0
        self._written = 0
        self._dropped = 0
        self._queue: queue.SimpleQueue[list[str] | Literal["reopen"] | None] = queue.SimpleQueue()
        self._broken = False
        self._thread = threading.Thread(target=self._write_batches, name="access-log", daemon=True)
        self._thread.start()

    def _open(self) -> int:
        if self._path == "-":
            return os.dup(1)
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostError(
                f"cannot write the access log {self._path}: {error.strerror}"
            ) from error

    def add(self, request: Finished) -> None:
        """Note a request that ended."""
        self._lines.append(self._format(request))
        if len(self._lines) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Hand the lines noted so far to the writer."""
        lines = self._lines
        if not lines:
            return
        self._lines = []
        if self._handed - self._written > BACKLOG:
            self._dropped += len(lines)
            return
        if self._dropped:
            logger.warning("access log: %d lines dropped, writing is too slow", self._dropped)
            self._dropped = 0
        self._handed += len(lines)
        self._queue.put(lines)

    def reopen(self) -> None:
        """Open the file anew, after logrotate has moved the old one away."""
        self.flush()
        if self._path != "-":
            self._queue.put("reopen")

    def close(self) -> None:
        """Write what was noted and close; waits at most 5 s for a reader that has stopped."""
        self.flush()
        self._queue.put(None)
        self._thread.join(5)

    def _write_batches(self) -> None:
        while (lines := self._queue.get()) is not None:
            if lines == "reopen":
                self._reopen_now()
                continue
            try:
                self._write(lines)
                self._broken = False
            except OSError as error:
                if not self._broken:  # say it once, not a thousand times a second
                    logger.error("access log %s: %s", self._path, error.strerror)  # noqa: TRY400 - a full disk needs no traceback
                self._broken = True
            self._written += len(lines)
        os.close(self._fd)

    def _reopen_now(self) -> None:
        try:
            fresh = self._open()
        except HostError as error:
            logger.error("%s; the old file is kept", error)  # noqa: TRY400 - the line says it all
            return
        os.close(self._fd)
        self._fd = fresh

    def _write(self, lines: list[str]) -> None:
        # A pipe takes PIPE_BUF bytes in one piece (pipe(7)), a file as many as we give it.
        pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
        limit = select.PIPE_BUF if pipe else 1 << 20
        batch = bytearray()
        for line in lines:
            data = line.encode("utf-8", "backslashreplace")
            if batch and len(batch) + len(data) > limit:
                self._write_all(batch)
                batch = bytearray()
            batch += data
        self._write_all(batch)

    def _write_all(self, data: bytearray) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
