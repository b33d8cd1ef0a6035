"""Limits on the bandwidth to a place, by the time of day, and a slower place than there is.

All readers and all writers of the place share `download` and `upload` among them, in this process;
several gateways or workers each have their own. Waiting holds no lock, and what needs no bandwidth
(a listing, a copy or a hash that the place makes itself) is not held up by what does.

`latency` is the least time that an operation takes, and with the rates it emulates a slower place,
as borgstore's BORGSTORE_LATENCY and BORGSTORE_BANDWIDTH do for its Store (`emulation` reads what
these hold, in microseconds and bits per second).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

from ..backends.base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer
from .base import Layer, changed
from .options import OptionInvalid, duration
from .throttle_rate import Pace, Timetable, timetable
from .wrapped import WrappedReader, WrappedWriter


def from_options(
    inner: Backend, *, upload: object = "off", download: object = "off", latency: object = 0
) -> ThrottleLayer:
    """`upload`, `download`: as `timetable` reads them; `latency`: a time such as "20 ms"."""
    return ThrottleLayer(
        inner,
        upload=timetable("upload", upload),
        download=timetable("download", download),
        latency=duration("latency", latency),
    )


def emulation(latency: str | None, bandwidth: str | None) -> dict[str, object]:
    """Return the options for what BORGSTORE_LATENCY (µs) and BORGSTORE_BANDWIDTH (bit/s) hold.

    Empty, 0 and None are no emulation.

    Raises:
        OptionInvalid: one of them is no number; `option` is the variable's name.
    """
    options: dict[str, object] = {}
    if microseconds := _number("BORGSTORE_LATENCY", latency):
        options["latency"] = microseconds / 1e6
    if bits := _number("BORGSTORE_BANDWIDTH", bandwidth):
        options["upload"] = options["download"] = max(int(bits / 8), 1)
    return options


def _number(variable: str, value: str | None) -> float:
    try:
        number = float(value or "0")
    except ValueError:
        number = math.nan
    if math.isfinite(number) and number >= 0:
        return number
    raise OptionInvalid(variable, f"must be a number of at least 0, not {value!r}")


class ThrottleLayer(Layer):
    """A place with limited bandwidth.

    Args:
        upload, download: rates in bytes per second by the time of the week.
        latency: seconds that an operation takes at least.
        clock: monotonic seconds. now: local time. sleep: waits.
    """

    def __init__(
        self,
        inner: Backend,
        *,
        upload: Timetable,
        download: Timetable,
        latency: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._upload = Pace(upload, clock=clock, now=now, sleep=sleep)
        self._download = Pace(download, clock=clock, now=now, sleep=sleep)
        self._latency = latency
        self._clock = clock
        self._sleep = sleep

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # it follows the inner one's
        return changed(self.inner.capabilities, local_path=False)

    @contextmanager
    def _operation(self) -> Iterator[None]:
        """Let the block take at least the latency; an error comes as late."""
        start = self._clock()
        try:
            yield
        finally:
            if self._latency and (rest := start + self._latency - self._clock()) > 0:
                self._sleep(rest)

    # -- what moves bytes

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        with self._operation():
            reader = self.inner.open_reader(name, offset=offset, size=size)
        return ThrottledReader(reader, self._download)

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        if self._latency:
            return None
        reader = self.inner.open_reader_nowait(name, offset=offset, size=size)
        return None if reader is None else ThrottledReader(reader, self._download)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        writer = self.inner.open_writer(
            name, size=size, if_absent=if_absent, expected_hash=expected_hash
        )
        return ThrottledWriter(writer, self._upload, self._operation)

    def resume_writer(self, token: str) -> Writer:
        with self._operation():
            writer = self.inner.resume_writer(token)
        return ThrottledWriter(writer, self._upload, self._operation)

    def abort_writer(self, token: str) -> None:
        with self._operation():
            self.inner.abort_writer(token)

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        with self._operation():
            value = self.inner.gather(sources)
        self._download.take(len(value))
        return value

    def copy(self, name: str, new_name: str) -> None:
        if not self.inner.capabilities.copy:
            super().copy(name, new_name)  # the bytes come here and go back
            return
        with self._operation():
            self.inner.copy(name, new_name)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        if not self.inner.capabilities.hash:
            return super().hash(name, algorithm)
        with self._operation():
            return self.inner.hash(name, algorithm)

    # -- what does not

    def mkdir(self, name: str) -> None:
        with self._operation():
            self.inner.mkdir(name)

    def mkdirs(self, names: Iterable[str]) -> None:
        with self._operation():
            self.inner.mkdirs(names)

    def rmdir(self, name: str) -> None:
        with self._operation():
            self.inner.rmdir(name)

    def info(self, name: str) -> ItemInfo:
        with self._operation():
            return self.inner.info(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        with self._operation():
            return self.inner.list(name)

    def delete(self, name: str) -> None:
        with self._operation():
            self.inner.delete(name)

    def delete_sized(self, name: str) -> int:
        with self._operation():
            return self.inner.delete_sized(name)

    def move(self, name: str, new_name: str) -> None:
        with self._operation():
            self.inner.move(name, new_name)

    def move_if_absent(self, name: str, new_name: str) -> None:
        with self._operation():
            self.inner.move_if_absent(name, new_name)

    def quota(self) -> Quota:
        with self._operation():
            return self.inner.quota()

    def quarantine(self, name: str) -> str:
        with self._operation():
            return self.inner.quarantine(name)


class ThrottledReader(WrappedReader):
    """Delivers no faster than its pace, which it shares with others."""

    def __init__(self, reader: Reader, pace: Pace) -> None:
        super().__init__(reader)
        self._pace = pace

    def read(self, size: int) -> bytes:
        data = self._reader.read(min(size, self._pace.piece))
        self._pace.take(len(data))
        return data

    def read_nowait(self, size: int) -> bytes | bytearray | None:
        return self._reader.read_nowait(size) if self._pace.unlimited else None


class ThrottledWriter(WrappedWriter):
    """Takes bytes no faster than its pace, which it shares with others."""

    def __init__(
        self, writer: Writer, pace: Pace, operation: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__(writer)
        self._pace = pace
        self._operation = operation

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        start = 0
        while start < len(view):
            piece = view[start : start + self._pace.piece]
            self._pace.take(len(piece))
            self._writer.write(piece)
            start += len(piece)

    def commit(self) -> None:
        with self._operation():
            self._writer.commit()

    def commit_over(self, kept: str) -> None:
        with self._operation():
            self._writer.commit_over(kept)

    def checkpoint(self) -> str:
        with self._operation():
            return self._writer.checkpoint()

    def mark(self) -> str:
        return self._writer.mark()

    def leave(self) -> None:
        self._writer.leave()
