"""`backupgw store bench`: how fast a place is, from here.

Works in a fresh folder, which is removed again. Values are random, so that no place compresses
them; each is written once and read back once, and read sizes are checked. On a local disk reading
shows the page cache.
"""

from __future__ import annotations

import secrets
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...command import CommandError, Exit, UsageError
from .location import Places
from .output import json_document, remark, size_text, table

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend

_CHUNK = 1 << 18
_ENOUGH = 64 << 20
"""Bytes written for each size where no count is given, between 4 and 100 items."""


@dataclass
class Line:
    """One operation at one size.

    Attributes:
        size: of each item in bytes.
        seconds: of the whole phase, all threads together.
        took: seconds of each call.
        moved: bytes.
    """

    operation: str
    size: int
    threads: int
    seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    moved: int = 0

    def at(self, share: float) -> float:
        """Return the seconds that this share of the calls did not exceed."""
        ordered = sorted(self.took)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def bench(arguments: Namespace, places: Places) -> int:
    """Measure, and print a table."""
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.conformance.subject import remove_tree_if_there
    from backupgw.kvstore.names import joined

    from ...interrupts import attended

    sizes = _sizes(arguments.sizes)
    location = places.locate(arguments.location)
    place = places.open(location)
    folder = joined(location.path, f"bench-{secrets.token_hex(6)}")
    stop = threading.Event()

    def work() -> list[Line]:
        lines: list[Line] = []
        try:
            place.mkdir(folder)
            for size in sizes:
                count = arguments.count or max(4, min(100, _ENOUGH // max(1, size)))
                lines += _measure(place, f"{folder}/{size}", size, count, arguments.threads, stop)
        finally:
            remove_tree_if_there(place, folder)
        return lines

    try:
        lines = attended(work, stop.set)
    except BackendError as error:
        raise CommandError(f"{location.place}: {error}") from error
    if arguments.json:
        json_document({"place": location.place, "lines": [_record(line) for line in lines]})
    else:
        table(_rows(lines), right=range(1, 9))
        if not place.capabilities.concurrent and arguments.threads > 1:
            remark("this place does one thing at a time: more threads cannot make it faster")
    return Exit.DONE


def _sizes(text: str) -> list[int]:
    from backupgw.kvstore.layers.options import OptionInvalid, size

    try:
        return [size("--sizes", part.strip()) for part in text.split(",")]
    except OptionInvalid as error:
        raise UsageError(str(error)) from error


def _measure(
    place: Backend, folder: str, size: int, count: int, threads: int, stop: threading.Event
) -> Iterator[Line]:
    value = secrets.token_bytes(min(size, _CHUNK))
    names = [f"{folder}/{number:06}" for number in range(count)]

    def go_on() -> None:
        if stop.is_set():
            raise _Stopped

    def write(name: str) -> int:
        with place.open_writer(name, size=size) as writer:
            left = size
            while left:
                go_on()
                writer.write(memoryview(value)[: min(left, len(value))])
                left -= min(left, len(value))
        return size

    def read(name: str) -> int:
        from backupgw.kvstore.backends.errors import ReadRangeError

        moved = 0
        with place.open_reader(name) as reader:
            while chunk := reader.read(_CHUNK):
                go_on()
                moved += len(chunk)
        if moved != size:
            raise ReadRangeError(f"{name}: {moved} of {size} bytes came back")
        return moved

    def look(name: str) -> int:
        place.info(name)
        return 0

    def listing(name: str) -> int:
        for _ in place.list(name):
            pass
        return 0

    def delete(name: str) -> int:
        place.delete(name)
        return 0

    yield _phase("write", write, names, size, threads, stop)
    yield _phase("info", look, names, size, threads, stop)
    yield _phase("read", read, names, size, threads, stop)
    yield _phase("list", listing, [folder] * min(count, 10), size, 1, stop)
    yield _phase("delete", delete, names, size, threads, stop)


class _Stopped(Exception):
    """Ctrl-C, or another thread failed."""


def _phase(
    operation: str,
    work: Callable[[str], int],
    names: Sequence[str],
    size: int,
    threads: int,
    stop: threading.Event,
) -> Line:
    """Do something with each name, by several threads, and measure.

    Args:
        stop: set when the rest is not to be done.

    Raises:
        Exception: the first that `work` raised.
    """
    line = Line(operation, size, threads)
    failures: list[BaseException] = []

    def run(mine: Sequence[str]) -> None:
        for name in mine:
            if stop.is_set():
                return
            begun = time.perf_counter()
            try:
                moved = work(name)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)
                stop.set()
                return
            line.took.append(time.perf_counter() - begun)
            with lock:
                line.moved += moved

    lock = threading.Lock()
    crew = [
        threading.Thread(target=run, args=(names[n::threads],), daemon=True) for n in range(threads)
    ]
    begun = time.perf_counter()
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    line.seconds = time.perf_counter() - begun
    if failures:
        raise failures[0]
    return line


def _rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    titles = ("operation", "size", "threads", "calls", "calls/s", "MiB/s", "p50 ms", "p95 ms")
    rows: list[tuple[str, ...]] = [(*titles, "max ms")]
    for line in lines:
        rate, volume = _rates(line)
        rows.append(
            (
                line.operation,
                size_text(line.size),
                str(line.threads),
                str(len(line.took)),
                f"{rate:.1f}",
                f"{volume / (1 << 20):.1f}" if line.moved else "-",
                *(f"{line.at(share) * 1000:.2f}" for share in (0.5, 0.95, 1.0)),
            )
        )
    return rows


def _rates(line: Line) -> tuple[float, float]:
    if line.seconds <= 0:
        return 0.0, 0.0
    return len(line.took) / line.seconds, line.moved / line.seconds


def _record(line: Line) -> dict[str, object]:
    rate, volume = _rates(line)
    return {
        "operation": line.operation,
        "size": line.size,
        "threads": line.threads,
        "calls": len(line.took),
        "calls_per_second": round(rate, 2),
        "bytes_per_second": round(volume) if line.moved else None,
        "p50_ms": round(line.at(0.5) * 1000, 3),
        "p95_ms": round(line.at(0.95) * 1000, 3),
        "p99_ms": round(line.at(0.99) * 1000, 3),
        "max_ms": round(line.at(1.0) * 1000, 3),
    }
