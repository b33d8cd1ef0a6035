"""What a place implements: `Backend`, and the readers and writers it hands out.

Promises of every backend, checked by `backupgw.kvstore.conformance`:

- A value is visible whole or not at all, after a crash too; until a writer's `commit` returns,
  nothing of it can be listed or read.
- When `commit`, `delete` or `move` returns, the place has acknowledged it durably.
- Readers and writers move bounded buffers. Nothing needs the whole value in memory.
- Every method may be called from many threads and processes at once. One reader or writer belongs
  to one thread at a time.
- Only `errors.BackendError`s leave a backend (and `names.InvalidName` for a bad name, which is a
  ValueError).

A layer is a Backend around a Backend. The optional operations below have defaults that stand on
the small core, so a layer that does not override one never lets a native one slip past it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from .errors import ObjectExists, ObjectNotFound, ReadRangeError, UnsupportedOperation
from .records import Capabilities as Capabilities
from .records import FileSpan as FileSpan
from .records import ItemInfo as ItemInfo
from .records import Loaded as Loaded
from .records import Quota as Quota

CHUNK = 1 << 20
"""Bytes moved at a time by the operations that copy, hash or concatenate."""

_LOADED_AT_ONCE = 64 << 20
"""Bytes that `load` asks a reader for at most."""


class Reader(ABC):
    """The bytes of one item from an offset on. A context manager."""

    item_size: int
    """Size in bytes of the whole item, whatever part of it is read."""
    remaining: int
    """Bytes this reader has yet to deliver."""

    @property
    def version(self) -> str | None:
        """What tells this value from any other that this name had or will have, while this reader
        is open: two readers of one item with the same version read the same bytes. None where the
        place does not tell. It has no other meaning."""
        return None

    @abstractmethod
    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or b"" at the end of what was asked for.

        Raises:
            BackendError: the place failed; ReadRangeError when it delivered fewer bytes than it
                had announced.
        """

    def read_into(self, buffer: memoryview) -> int:
        """Like read, into a buffer of the caller's; return how many bytes, 0 at the end.

        Places that can do so save the memory that each piece would take.
        """
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_nowait(self, size: int) -> bytes | bytearray | None:
        """Like read, if that needs no waiting (page cache); None where it would wait."""
        return None

    def file_span(self) -> FileSpan | None:
        """Tell where the bytes that remain lie, exactly as `read` would return them, in a file of
        this machine; None where they do not.

        For callers that send a file on without reading it; the descriptor is valid until `close`.
        A layer that changes, delays or counts what is read keeps the default.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go of what the reader holds. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Writer(ABC):
    """One value on its way in. Ends with exactly one of `commit` or `abort`.

    As a context manager it commits when the block ends well and aborts when it does not. The hash
    and the size a writer was opened with are checked by `commit`.
    """

    @abstractmethod
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take all of `data`. The caller may reuse the buffer afterwards.

        Raises:
            StorageFull, QuotaExceeded: no room; the writer must then be aborted.
        """

    @abstractmethod
    def commit(self) -> None:
        """Make the value visible, durably. After an error nothing was stored, unless the place
        broke down while it was acknowledging: then the value may be there, but never a part of it.

        Raises:
            ObjectExists: opened with if_absent, and an item of that name exists. The writer is
                still whole: once the item was moved out of the way, commit may be called again.
            ContentMismatch: the bytes do not have the expected hash or size, be the name free or
                not.
        """

    def check(self) -> None:
        """Raise ContentMismatch where `commit` would; change nothing. A writer that expects nothing
        has nothing to check.

        For layers that find by themselves that a name is taken: who is told ObjectExists relies on
        it that the value is whole.
        """

    def commit_over(self, kept: str) -> None:
        """Like commit, where the item that is replaced gets the name `kept` in the same step.

        For layers that keep what is replaced: readers see the old value or the new one, never
        none. `kept` must be free, and is a `names.KernelPath` of the place.

        Raises:
            UnsupportedOperation: the place cannot; nothing was done, and commit may be called.
            ObjectNotFound: there is nothing to replace; likewise.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot keep what it replaces")

    @abstractmethod
    def abort(self) -> None:
        """Forget what was written. Idempotent; a no-op after `commit`; never raises for a place
        that is gone."""

    def checkpoint(self) -> str:
        """Make what was written so far durable, and return a token by which any process can carry
        the write on (`Backend.resume_writer`) or give it up (`Backend.abort_writer`).

        The writer is closed; what carries on is a new one.

        Raises:
            UnsupportedOperation: capabilities.resumable_write is False.
        """
        raise UnsupportedOperation(f"{type(self).__name__} has no checkpoints")

    def mark(self) -> str:
        """Return a token as of a checkpoint, with which the write is carried on from what the
        place has by now should this process die; the writer itself goes on.

        For who has the bytes still: a resumed writer's `offset` tells from where they are wanted.
        The write that goes on must have ended before another one resumes it.

        Raises:
            UnsupportedOperation: the place cannot, or a hash is expected of the value.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot be carried on after a crash")

    def leave(self) -> None:
        """End as a crash would: what a mark's token stands for stays at the place. Without a mark
        it is `abort`. Never raises for a place that is gone."""
        self.abort()

    @property
    def offset(self) -> int:
        """Bytes written so far, those before a checkpoint included."""
        raise UnsupportedOperation(f"{type(self).__name__} does not count")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.commit()
        except BaseException:
            self.abort()
            raise


class Backend(ABC):
    """A place for items, each a name and a value.

    Names are paths as `names.check_path` has them; a folder exists once it was made or holds an
    item. The empty name is the root.
    """

    capabilities: Capabilities

    # -- the core, which every place implements

    @abstractmethod
    def create(self) -> None:
        """Make the place. Raises BackendAlreadyExists where something is there already."""

    @abstractmethod
    def destroy(self) -> None:
        """Remove the place with all it holds. Raises BackendDoesNotExist."""

    def prepare_fork(self) -> None:
        """Do what `open` does without asking the place, with no thread and no connection left: who
        forks processes that open the place each has it done once. Raises BackendError."""

    def handed_on(self) -> Mapping[str, object]:
        """Return what `open` found out, for other processes that open the same place; picklable,
        and secrets may be among it."""
        return {}

    def take_over(self, found: Mapping[str, object]) -> None:
        """Take what another process has `handed_on`; `open` follows, and need not find it out."""

    @abstractmethod
    def open(self) -> None:
        """Get ready for operations. Raises BackendDoesNotExist, BackendMustNotBeOpen."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and descriptors. Raises BackendMustBeOpen."""

    @abstractmethod
    def mkdir(self, name: str) -> None:
        """Make a folder with its parents; one that exists is fine."""

    @abstractmethod
    def rmdir(self, name: str) -> None:
        """Remove an empty folder. Raises ObjectNotFound; BackendError when it is not empty."""

    @abstractmethod
    def info(self, name: str) -> ItemInfo:
        """Tell about an item or folder. Never raises for a missing one: `exists` is False."""

    @abstractmethod
    def list(self, name: str) -> Iterator[ItemInfo]:
        """Yield the entries of a folder in any order, not recursively.

        Lazy: memory does not grow with the number of entries. Entries that vanish meanwhile may be
        left out. Kernel-internal names never appear.

        Raises:
            ObjectNotFound: no such folder; raised by the call or by the first `next`.
        """

    def list_sizes(self, name: str) -> Iterator[tuple[str, int]]:
        """Yield name and size of a folder's items, for those who list very many. Lazy, and raises,
        as `list`.
        """
        for item in self.list(name):
            if not item.directory:
                yield item.name, item.size

    @abstractmethod
    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        """Start reading an item.

        Args:
            offset: first byte; negative counts from the end and is clamped to the start.
            size: how many bytes at most, None for all. An offset past the end reads nothing.

        Raises:
            ObjectNotFound: there is no such item, or it is a folder.
        """

    @abstractmethod
    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        """Start writing an item; missing folders are made.

        Args:
            size: bytes that will come, where known; a place may refuse early for lack of room, and
                commit refuses any other number.
            if_absent: commit refuses to replace an existing item. Whether that is atomic among
                writers is `capabilities.atomic_create`. Only commit tells: opening never does.
            expected_hash: SHA-256 in lower-case hex that the bytes must have.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an item. Raises ObjectNotFound; a folder is not an item."""

    @abstractmethod
    def move(self, name: str, new_name: str) -> None:
        """Rename an item, replacing what is at `new_name`; missing folders are made.

        Raises ObjectNotFound when there is no `name`.
        """

    # -- optional operations, each with a default on top of the core

    def delete_sized(self, name: str) -> int:
        """Like delete, and return how many bytes the item had.

        The default looks first. A place that learns the size on the way overrides it; a look of its
        own costs a round trip. What an attempt removed whose answer was lost may count as 0.
        """
        size = self.info(name).size
        self.delete(name)
        return size

    def move_if_absent(self, name: str, new_name: str) -> None:
        """Like move, but never replaces an item.

        One step where the place itself has it; the default looks first.

        Raises:
            ObjectExists: there is something at `new_name`.
            ObjectNotFound: there is no `name`.
        """
        require_found(self.info(name))
        if self.info(new_name).exists:
            raise ObjectExists(f"{new_name} exists")
        self.move(name, new_name)

    def mkdirs(self, names: Iterable[str]) -> None:
        """Make several folders; cheaper than one by one where each costs a sync."""
        for name in names:
            self.mkdir(name)

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        """Like open_reader where that needs no waiting, else None; for event loops.

        The default never waits: it knows nothing. Raises what open_reader raises.
        """
        return None

    def load_nowait(self, name: str, *, offset: int = 0, size: int | None = None) -> Loaded | None:
        """Return what `load` would, with the item's size, where that is little and needs no
        waiting, else None; for event loops.

        The default knows nothing. What is not there is None, too: `open_reader` says why.
        """
        return None

    def store_nowait(
        self,
        name: str,
        value: bytes,
        *,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> bool:
        """Write an item where that needs no waiting, and return True; else do nothing and return
        False. For event loops.

        The default never writes: it knows nothing. Raises what open_writer and `Writer.commit`
        raise.
        """
        return False

    def surely_missing(self, name: str) -> bool:
        """Whether nothing has this name for sure.

        False says nothing: `info` knows. For places where this answer is cheaper than `info`, to
        whoever expects it.
        """
        return False

    def file_number(self, name: str) -> int:
        """Return the number that the item's file has on this machine's disk; 0 where there is none.

        No other item has it as long as this one is there, which keeps it through a move. A place
        that tells it has one for its root, too: for any other the answer is always 0.
        """
        return 0

    def sync(self, name: str) -> None:
        """Make sure that the item seen at `name` outlasts a power loss, whoever wrote it.

        For those who promise an item that they did not write themselves: its writer may be between
        naming it and syncing, or may have died there. Nothing to do where a place shows only what
        it has acknowledged.

        Raises:
            ObjectNotFound: there is no such item.
        """

    def resume_writer(self, token: str) -> Writer:
        """Carry on a checkpointed write.

        Raises ObjectNotFound when it is gone, and may raise ValueError for what no checkpoint
        ever returned.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot resume writes")

    def abort_writer(self, token: str) -> None:
        """Give a checkpointed write up; one that is gone already is fine."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot resume writes")

    def keep_writer(self, token: str) -> None:
        """Whoever has the token of a checkpoint says that it is written down: what is kept for it
        beside its bytes is kept though this process ends. Idempotent, and a no-op where all has
        been kept from the checkpoint on, and for one that is gone.
        """

    def reserve_writer(
        self,
        name: str,
        *,
        size: int,
        if_absent: bool = False,
        seconds: float | None = None,
    ) -> str:
        """Return a token, as of a checkpoint, of a write of which nothing has come yet.

        Where nothing but room is kept for it, the write can be begun without that room as well, as
        long as there is any.

        Args:
            size: its bytes.
            seconds: that the room for it is kept, where a layer keeps any; None: as long as that
                of other checkpoints.

        Raises:
            UnsupportedOperation: capabilities.resumable_write is False.
        """
        writer = self.open_writer(name, size=size, if_absent=if_absent)
        try:
            return writer.checkpoint()
        except BaseException:
            writer.abort()
            raise

    def load(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        """Return an item's bytes, whole, from `offset`, at most `size`. A convenience."""
        with self.open_reader(name, offset=offset, size=size) as reader:
            chunks = []
            # The whole value ends up in memory anyway: in one piece it need not be joined.
            while chunk := reader.read(min(reader.remaining, _LOADED_AT_ONCE) or 1):
                chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        """Write an item from memory, replacing what is there. A convenience."""
        with self.open_writer(name, size=memoryview(value).nbytes) as writer:
            writer.write(value)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        """Return the lower-case hex digest of an item by one of hashlib's algorithms.

        Raises:
            ValueError: no such algorithm.
        """
        digest = hashlib.new(algorithm)
        with self.open_reader(name) as reader:
            while chunk := reader.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def copy(self, name: str, new_name: str) -> None:
        """Copy an item within the place, replacing what is at `new_name`."""
        with (
            self.open_reader(name) as reader,
            self.open_writer(new_name, size=reader.item_size) as writer,
        ):
            while chunk := reader.read(CHUNK):
                writer.write(chunk)

    def gather(self, sources: Iterable[tuple[str, int, int]]) -> bytes:
        """Return the concatenation of (name, offset, size) parts.

        Raises:
            ReadRangeError: an item ends before its part does.
        """
        parts = []
        for name, offset, size in sources:
            part = self.load(name, offset=offset, size=size)
            if len(part) != size:
                raise ReadRangeError(f"{name}: {len(part)} of {size} bytes at {offset}")
            parts.append(part)
        return b"".join(parts)

    def defrag(self, sources: Sequence[tuple[str, int, int]], target: str) -> None:
        """Write the concatenation of (name, offset, size) parts as the item `target`.

        Raises:
            ReadRangeError: an item ends before its part does; `target` is not written.
        """
        with self.open_writer(target, size=sum(size for _, _, size in sources)) as writer:
            for name, offset, size in sources:
                with self.open_reader(name, offset=offset, size=size) as reader:
                    if reader.remaining != size:
                        raise ReadRangeError(
                            f"{name}: {reader.remaining} of {size} bytes at {offset}"
                        )
                    while chunk := reader.read(CHUNK):
                        writer.write(chunk)

    def quota(self) -> Quota:
        """Bytes the place allows and holds, where it keeps count."""
        return Quota()

    def reap(self, older_than: float) -> int:
        """Remove what dead writers left behind more than `older_than` seconds ago.

        Returns how many were removed. Checkpointed writes have a longer age of their own.
        """
        return 0

    def quarantine(self, name: str) -> str:
        """Take an item that was found damaged out of every protocol's reach, losing nothing.

        Returns where it is kept, for the log. The default moves it beneath the kernel's own name.

        Raises:
            ObjectNotFound: no such item.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot set items aside: {name}")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def require_found(info: ItemInfo) -> ItemInfo:
    """Return `info` if it tells of an existing item, else raise ObjectNotFound."""
    if not info.exists or info.directory:
        raise ObjectNotFound(info.name)
    return info
