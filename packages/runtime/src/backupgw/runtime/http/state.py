"""What the connections of one service in one worker process share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from backupgw.runtime.between_workers import Tally
from backupgw.runtime.http.first_step import AnswerNowait
from backupgw.runtime.http.options import HttpOptions
from backupgw.runtime.threads import Threads

FILE_THREADS = 16
"""Answers that are written from files at the same time; more wait in line for some milliseconds."""


class Finished(Protocol):
    """What is known of a request when its answer is complete or was given up.

    `status` is 499 where the client left before an answer; `sent` and `received` are bytes of
    bodies; `method` is `-` and `http_version` empty where the request could not be understood.
    """

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    status: int
    sent: int
    received: int

    @property
    def client(self) -> str: ...

    @property
    def user(self) -> str | None: ...

    @property
    def http_version(self) -> str: ...

    @property
    def seconds(self) -> float: ...


class HostState:
    """Limits, the clock and the counters.

    Attributes:
        answer_nowait: the application's plain call, if it has one (see `first_step`).
        begins_at_once: whether the application can begin without a task (see `first_step`).
        clock: seconds in which this process was able to serve; it does not advance while the
            process was held up (a blocked loop, a suspended machine), so that no client is
            given up for a stall that was ours.
        stopping: the process is about to end; it takes no new work.
        requests: how many requests ended, by method and status.
        addresses: open connections by client address, of all workers.
        most_connections: open in this worker, its part of what all may have; 0: any number.
        end_of_head: the Date header and the empty line that end every answer's head.
        file_threads: where large answers are written from files.
        connection_lost: called for each connection that ended, when somebody counts them.
        log: called for each request that ended, when there is an access log.
    """

    __slots__ = (
        "addresses", "answer_nowait", "begins_at_once", "clock", "connection_lost", "end_of_head",
        "file_threads", "log", "most_connections", "options", "requests", "stopping",
    )  # fmt: skip

    def __init__(
        self,
        options: HttpOptions,
        log: Callable[[Finished], None] | None = None,
        service: str = "http",
    ) -> None:
        self.options = options
        self.answer_nowait: AnswerNowait | None = None
        self.begins_at_once = False
        self.clock = 0.0
        self.stopping = False
        self.end_of_head = b"\r\n"
        self.requests: dict[tuple[str, int], int] = {}
        self.addresses = Tally(f"connections-{service}")
        # They are dealt out evenly (see `dealing`).
        self.most_connections = -(-options.max_connections // max(1, options.workers))
        self.file_threads = Threads(FILE_THREADS, "file-body")
        self.connection_lost: Callable[[], None] | None = None
        self.log = log

    def finished(self, request: Finished) -> None:
        """Count and log a request that ended."""
        key = (request.method, request.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        if self.log is not None:
            self.log(request)
