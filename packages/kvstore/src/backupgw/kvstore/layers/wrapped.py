"""Readers and writers around others: what most layers hand through unchanged.

What could slip past a layer is not handed through: `read_nowait`, `file_span`, checkpoints and
`commit_over` stay those of a reader or writer that has none, until a layer says otherwise.
"""

from __future__ import annotations

from ..backends.base import Reader, Writer


class WrappedReader(Reader):
    """A reader around another, which it closes."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.item_size = reader.item_size

    @property
    def remaining(self) -> int:  # type: ignore[override]  # it follows the inner one's
        return self._reader.remaining

    @property
    def version(self) -> str | None:
        return self._reader.version

    def read(self, size: int) -> bytes:
        return self._reader.read(size)

    def close(self) -> None:
        self._reader.close()


class WrappedWriter(Writer):
    """A writer around another, which ends with it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @property
    def offset(self) -> int:
        return self._writer.offset

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._writer.write(data)

    def check(self) -> None:
        self._writer.check()

    def commit(self) -> None:
        self._writer.commit()

    def abort(self) -> None:
        self._writer.abort()
