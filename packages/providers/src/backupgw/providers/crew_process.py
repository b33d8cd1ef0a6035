"""A process of a crew: it moves the files that its parent tells it of (`crew`).

It opens the place for itself when it gets its first file, or sooner where its parent is busy with a
passphrase meanwhile. The key comes from there, in memory. Where its socket ends, because the parent
was killed, it ends what is under way as Ctrl-C would, and itself.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import signal
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from backupgw.kvstore.backends.errors import BackendError

from .moves import Job, Move, ProviderFailed, failure_of
from .place_provider import PlaceProvider

_TOLD_EVERY = 0.05
"""Seconds between two messages of what became of files."""


@dataclass(frozen=True, slots=True)
class News:
    """What it tells.

    Attributes:
        results: the number of each file that ended, its bytes, seconds, and error with its cause.
        under_way: bytes of files that have not ended.
        calls: requests since the last time, by name.
        ended: nothing more comes.
    """

    results: list[tuple[int, int, float, BaseException | None, BaseException | None]]
    under_way: int
    calls: dict[str, int]
    ended: bool = False


def serve(sock: socket.socket, provider: PlaceProvider, move: Move, threads: int) -> NoReturn:
    """Be a process of a crew, to the end of it."""
    status = 1
    try:
        # Both come to the parent as well, who ends this process in good order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        gc.enable()
        provider.transfers.share(threads)
        _Work(sock, provider, move, threads).run()
        status = 0
    finally:
        os._exit(status)  # what the parent has to do at its end is not to be done here


class _Work:
    """The files of one process."""

    def __init__(
        self, sock: socket.socket, provider: PlaceProvider, move: Move, threads: int
    ) -> None:
        self._sock = sock
        self._provider = provider
        self._move = move
        self._threads = threads
        self._tasks = queue.SimpleQueue[tuple[int, Job] | None]()
        self._lock = threading.Lock()
        self._results: list[tuple[int, int, float, BaseException | None, BaseException | None]] = []
        self._under_way: dict[int, int] = {}
        self._news = threading.Event()
        self._over = threading.Event()
        self._hurry = threading.Event()
        """Set when nothing is left to do: the parent may wait for that alone."""

    def run(self) -> None:
        opening = self._provider.opening
        early = threading.Thread(target=opening.open_early, name="open", daemon=True)
        if self._provider.opens_early:
            early.start()
        with self._sock.makefile("rb") as stream:
            try:
                handed: Mapping[str, object] = pickle.load(stream)  # noqa: S301 - its parent
            except EOFError:
                return  # it was not needed
            if self._provider.opens_early:
                early.join()
            opening.take_over(handed)
            teller = threading.Thread(target=self._tell, name="tell", daemon=True)
            teller.start()
            crew = [
                threading.Thread(target=self._take, name=f"provider-{n}", daemon=True)
                for n in range(self._threads)
            ]
            for thread in crew:
                thread.start()
            while (told := self._told(stream)) is not None:
                for each in told:
                    self._tasks.put(each)
        for _ in crew:
            self._tasks.put(None)
        for thread in crew:
            thread.join()
        self._provider.close()
        self._over.set()
        self._hurry.set()
        self._news.set()
        teller.join()

    def _told(self, stream: Any) -> list[tuple[int, Job]] | None:
        """Return the next files, None at the end."""
        try:
            told: list[tuple[int, Job]] | bool | None = pickle.load(stream)  # noqa: S301 - as above
        except (EOFError, OSError):
            told = False
        if told is False:
            self._provider.transfers.stopping.set()
            return None
        assert not isinstance(told, bool)
        return told

    def _take(self) -> None:
        while (task := self._tasks.get()) is not None:
            if not self._provider.transfers.stopping.is_set():
                self._do(*task)

    def _do(self, number: int, job: Job) -> None:
        begun = time.monotonic()
        last = [0, 0]

        def tell(done: int, total: int) -> None:
            last[:] = done, total
            self._under_way[number] = done

        error: BaseException | None = None
        try:
            if not self._move(self._provider, job, tell):
                error = failure_of(self._provider, job.name)
        except Exception as raised:  # noqa: BLE001 - told to the parent
            error = raised
        result = (number, last[1] or job.size, time.monotonic() - begun, *_portable(error))
        with self._lock:
            self._under_way.pop(number, None)
            self._results.append(result)
            if not self._under_way and self._tasks.empty():
                self._hurry.set()
        self._news.set()

    def _tell(self) -> None:
        told = 0
        while True:
            self._news.wait(5 * _TOLD_EVERY)
            over = self._over.is_set()
            self._news.clear()
            with self._lock:
                results, self._results = self._results, []
                under_way = sum(self._under_way.copy().values())
            if results or over or under_way != told:
                told = under_way
                news = News(results, under_way, self._provider.calls.take(), over)
                try:
                    self._sock.sendall(pickle.dumps(news, pickle.HIGHEST_PROTOCOL))
                except OSError:
                    self._provider.transfers.stopping.set()  # nobody is there any more
            if over:
                return
            self._hurry.wait(_TOLD_EVERY)
            self._hurry.clear()


def _portable(
    error: BaseException | None,
) -> tuple[BaseException | None, BaseException | None]:
    """Return an error and its cause, as far as they can be told to another process."""
    if error is None:
        return None, None
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - somebody else's class may raise whatever it likes
        retryable = isinstance(error, BackendError) and error.retryable
        error = ProviderFailed(str(error) or type(error).__name__, retryable=retryable)
    cause = error.__cause__
    return error, cause if isinstance(cause, OSError) else None
