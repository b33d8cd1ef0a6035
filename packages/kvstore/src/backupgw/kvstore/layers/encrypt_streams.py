"""Values on their way through the encryption, a few chunks at a time."""

from __future__ import annotations

from ..backends import resumable_sha256
from ..backends.base import Backend, Reader, Writer
from ..backends.errors import BackendError, ContentMismatch, ObjectNotFound
from ..backends.plan import Plan
from ..names import check_path
from .encrypt_age import (
    CHUNK,
    SEALED,
    START,
    Content,
    Key,
    Undecryptable,
    chunks_of,
    plain_size,
)
from .encrypt_checkpoints import Stopped, sealed_pending
from .encrypt_names import Names

AT_ONCE = 16
"""Chunks sealed or opened in one go: a mebibyte."""


class EncryptWriter(Writer):
    """Seals what it is given. Size and hash are those of the plain bytes.

    Args:
        writer: takes the file.
        plan: what `open_writer` was told, in plain.
    """

    def __init__(
        self,
        writer: Writer,
        key: Key,
        names: Names,
        plan: Plan,
        begun: tuple[bytes, Content] | None = None,
    ) -> None:
        self._writer = writer
        self._key = key
        self._names = names
        self._plan = plan
        self._name = plan.name
        self._size = plan.size
        self._expected_hash = plan.expected_hash
        self._digest = resumable_sha256.new() if plan.expected_hash is not None else None
        self._begun, self._content = begun or key.begin()
        self._start = self._begun
        """What the file begins with, until it was passed on."""
        self._pending = bytearray()
        self._number = 0
        self._written = 0
        self._ended = False
        self._complete = False

    @classmethod
    def resume(
        cls,
        writer: Writer,
        key: Key,
        names: Names,
        stopped: Stopped,
        content: Content,
        pending: bytes,
    ) -> EncryptWriter:
        """Carry a write on; `pending` are the plain bytes of the chunk that is not full yet."""
        resumed = cls(writer, key, names, stopped.plan, (stopped.start, content))
        if stopped.digest is not None:
            resumed._digest = resumable_sha256.ResumableSha256.from_state(stopped.digest)
        passed_on = START + stopped.number * SEALED if stopped.number else 0
        if writer.offset != passed_on:
            # Somebody carried it on and died; what they sealed is not sealed again.
            writer.abort()
            raise ObjectNotFound(f"the checkpoint of {stopped.plan.name} was carried on already")
        if stopped.number:
            resumed._start = b""
        resumed._number = stopped.number
        resumed._pending += pending
        resumed._written = stopped.number * CHUNK + len(pending)
        return resumed

    def checkpoint(self) -> str:
        self._require_open()
        if self._complete:
            raise BackendError(f"{self._name}: commit was called")
        digest = None if self._digest is None else self._digest.state()
        # All but the last chunk, of which a byte at least is left where there was one.
        if full := max(0, len(self._pending) - 1) // CHUNK:
            self._seal(full)
        pending = sealed_pending(self._key, self._begun, bytes(self._pending))
        inner = self._writer.checkpoint()
        self._ended = True
        self._pending.clear()
        return Stopped(inner, self._plan, self._begun, self._number, pending, digest).token()

    @property
    def offset(self) -> int:
        return self._written

    def _require_open(self) -> None:
        if self._ended:
            raise BackendError(f"{self._name}: the writer has ended")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._require_open()
        if self._complete:
            raise BackendError(f"{self._name}: nothing is written after a commit")
        view = memoryview(data).cast("B")
        if self._size is not None and self._written + len(view) > self._size:
            raise ContentMismatch(f"{self._name}: more than the {self._size} bytes due")
        self._written += len(view)
        while view:
            start = len(self._pending)
            taken = view[: (AT_ONCE + 1) * CHUNK - start]
            self._pending += taken
            if self._digest is not None:
                self._digest.update(self._pending, start, len(self._pending))
            view = view[len(taken) :]
            # One byte more than a chunk shows that the chunk is not the last.
            if len(self._pending) > AT_ONCE * CHUNK:
                self._seal((len(self._pending) - 1) // CHUNK)

    def _seal(self, count: int, *, last: bool = False) -> None:
        """Pass `count` full chunks on, and with `last` what is left as the last one."""
        write = self._writer.write
        if self._start:
            write(self._start)
            self._start = b""
        with memoryview(self._pending) as pending:
            for index in range(count):
                with pending[index * CHUNK : (index + 1) * CHUNK] as chunk:
                    write(self._content.seal(self._number + index, chunk, last=False))
            if last:
                with pending[count * CHUNK :] as rest:
                    write(self._content.seal(self._number + count, rest, last=True))
        self._number += count
        del self._pending[: count * CHUNK]

    def check(self) -> None:
        self._require_open()
        if self._size is not None and self._written != self._size:
            raise ContentMismatch(f"{self._name}: {self._written} of {self._size} bytes came")
        if self._digest is not None and self._digest.hexdigest() != self._expected_hash:
            raise ContentMismatch(
                f"{self._name}: the content has SHA-256 {self._digest.hexdigest()}"
            )

    def _finish(self) -> None:
        """Check the plain bytes and pass the last of them on, once."""
        self.check()
        if self._complete:
            return
        self._seal(max(0, len(self._pending) - 1) // CHUNK, last=True)
        self._pending.clear()
        self._complete = True

    def commit(self) -> None:
        self._finish()
        self._writer.commit()
        self._ended = True

    def commit_over(self, kept: str) -> None:
        self._finish()
        self._writer.commit_over(self._names.sealed(check_path(kept)))
        self._ended = True

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            self._pending.clear()
            self._writer.abort()


class EncryptReader(Reader):
    """Opens what it is asked for; no byte is given out that was not found genuine.

    Args:
        reader: at the beginning of the first chunk to be opened.
        number: of that chunk.
        skip: bytes at its beginning that nobody asked for.
        item_size, remaining: in plain bytes.
    """

    def __init__(
        self,
        reader: Reader,
        content: Content,
        name: str,
        *,
        number: int,
        skip: int,
        item_size: int,
        remaining: int,
    ) -> None:
        self.item_size = item_size
        self.remaining = remaining
        self._reader = reader
        self._content = content
        self._name = name
        self._number = number
        self._last = chunks_of(item_size) - 1
        self._skip = skip
        self._opened = memoryview(b"")
        self._sealed = memoryview(b"")
        """Where sealed chunks are read into."""
        self._closed = False

    @property
    def version(self) -> str | None:
        return self._reader.version

    def fill(self, size: int) -> None:
        """Open the next chunks, enough for `size` bytes if they are few. Raises Undecryptable."""
        wanted = -(-(self._skip + min(size, self.remaining)) // CHUNK)
        parts = self._next(wanted)
        opened = parts[0] if len(parts) == 1 else b"".join(parts)
        self._opened = memoryview(opened)[self._skip :]
        self._skip = 0

    def _next(self, wanted: int) -> list[bytes]:
        """Return the next chunks, one at least. Raises Undecryptable."""
        count = min(max(1, wanted), AT_ONCE, self._last + 1 - self._number)
        length = count * SEALED
        if self._number + count > self._last:
            length -= (self._last + 1) * CHUNK - max(self.item_size, 0)
        if len(self._sealed) < length:
            self._sealed = memoryview(bytearray(length))
        sealed = self._sealed[:length]
        fill_exactly(self._reader, sealed, self._name)
        parts = []
        for index in range(count):
            number = self._number + index
            chunk = sealed[index * SEALED : (index + 1) * SEALED]
            try:
                parts.append(self._content.open(number, chunk, last=number == self._last))
            except Undecryptable as error:
                raise Undecryptable(f"{self._name}: {error}") from error
        self._number += count
        return parts

    def read_into(self, buffer: memoryview) -> int:
        if self._closed or self._opened or self._skip or len(buffer) < CHUNK:
            return super().read_into(buffer)
        if self.remaining == 0:
            return 0
        done = 0
        wanted = min(len(buffer) // CHUNK, chunks_of(self.remaining))
        for part in self._next(wanted):
            taken = min(len(part), self.remaining)
            buffer[done : done + taken] = memoryview(part)[:taken]
            self.remaining -= taken
            done += taken
        return done

    def read(self, size: int) -> bytes:
        if self._closed:
            raise BackendError(f"{self._name}: the reader is closed")
        if size <= 0 or self.remaining == 0:
            return b""
        if not self._opened:
            self.fill(size)
        taken = bytes(self._opened[: min(size, self.remaining)])
        self._opened = self._opened[len(taken) :]
        self.remaining -= len(taken)
        return taken

    def close(self) -> None:
        self._closed = True
        self._opened = self._sealed = memoryview(b"")
        self._reader.close()


def fill_exactly(reader: Reader, buffer: memoryview, name: str) -> None:
    """Read as many bytes as the buffer has. Raises Undecryptable where there are fewer."""
    got = 0
    while got < len(buffer):
        count = reader.read_into(buffer[got:])
        if not count:
            raise Undecryptable(f"{name}: cut off")
        got += count


def read_exactly(reader: Reader, length: int, name: str) -> bytes:
    """Return the next `length` bytes. Raises Undecryptable where there are fewer."""
    first = reader.read(length)
    if len(first) == length:
        return first
    parts, got = [first], len(first)
    while parts[-1] and got < length:
        parts.append(reader.read(length - got))
        got += len(parts[-1])
    if got < length:
        raise Undecryptable(f"{name}: cut off")
    return b"".join(parts)


_TRIES = 5
"""How often an item may be replaced while somebody begins to read it."""


def open_item(
    place: Backend, key: Key, name: str, sealed: str, offset: int, size: int | None
) -> Reader:
    """Start reading the item that the place calls `sealed`; as Backend.open_reader.

    Raises:
        Undecryptable: it is damaged, or the key is another one.
    """
    if 0 <= offset < CHUNK:
        return _from_the_start(place, key, name, sealed, offset, size)
    for _ in range(_TRIES):
        # Two requests, of which the first tells the key and the size: may both be of one file?
        start, file_size = _beginning(place, sealed, name)
        try:
            return _from_within(place, key, name, sealed, offset, size, start, file_size)
        except Undecryptable:
            if _beginning(place, sealed, name) == (start, file_size):
                raise
    raise BackendError(f"{name}: is replaced all the time", retryable=True)


def _beginning(place: Backend, sealed: str, name: str) -> tuple[bytes, int]:
    with place.open_reader(sealed, size=START) as reader:
        return read_exactly(reader, START, name), reader.item_size


def _from_the_start(
    place: Backend, key: Key, name: str, sealed: str, offset: int, size: int | None
) -> Reader:
    wanted = None if size is None else START + chunks_of(offset + size) * SEALED
    body = place.open_reader(sealed, size=wanted)
    try:
        content = _content(key, read_exactly(body, START, name), name)
        item_size = _item_size(body.item_size, name)
        reader = EncryptReader(
            body,
            content,
            name,
            number=0,
            skip=offset,
            item_size=item_size,
            remaining=_remaining(item_size, offset, size),
        )
        if item_size == 0:
            reader.fill(0)  # nobody will read the chunk that says so
    except BaseException:
        body.close()
        raise
    return reader


def _from_within(
    place: Backend,
    key: Key,
    name: str,
    sealed: str,
    offset: int,
    size: int | None,
    start: bytes,
    file_size: int,
) -> Reader:
    content = _content(key, start, name)
    item_size = _item_size(file_size, name)
    position = max(0, item_size + offset) if offset < 0 else min(offset, item_size)
    remaining = _remaining(item_size, position, size)
    number = min(position, max(0, item_size - 1)) // CHUNK
    skip = position - number * CHUNK
    body = place.open_reader(
        sealed, offset=START + number * SEALED, size=chunks_of(skip + remaining) * SEALED
    )
    try:
        if body.item_size != file_size:
            raise Undecryptable(f"{name}: its size changed")
        reader = EncryptReader(
            body,
            content,
            name,
            number=number,
            skip=skip,
            item_size=item_size,
            remaining=remaining,
        )
        if remaining or item_size == 0:
            reader.fill(1)
    except BaseException:
        body.close()
        raise
    return reader


def _content(key: Key, start: bytes, name: str) -> Content:
    try:
        return key.read(start)
    except Undecryptable as error:
        raise Undecryptable(f"{name}: {error}") from error


def _item_size(file_size: int, name: str) -> int:
    size = plain_size(file_size)
    if size is None:
        raise Undecryptable(f"{name}: cut off, or something was added: no item has this size")
    return size


def _remaining(item_size: int, position: int, size: int | None) -> int:
    rest = max(0, item_size - position)
    return rest if size is None else max(0, min(size, rest))
