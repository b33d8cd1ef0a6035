"""A backend object that was written for borgstore 0.7, as a Backend.

    Store(backend=SomebodysBackend(…))          # adapted by itself
    open it elsewhere:  Adapted(SomebodysBackend(…))

Any object with the methods of borgstore's `BackendBase` will do; borgstore need not be installed.
Such an object moves whole values and need not be thread-safe: values have a largest size, and few
calls (one, unless told otherwise) run at a time. A value on its way lies in memory up to 2 MiB and
in a temporary file beyond, but for the moment in which the object has it. What the object's place
promises of atomicity and durability is what there is: borgstore's own `posixfs` syncs only if told.

Its names are borgstore's: it refuses what breaks their rules, and so does this.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import IO, Any, Protocol

from ..names import InvalidName, check_folder, check_path, is_reserved
from . import errors
from .base import Backend, Capabilities, ItemInfo, Quota, Reader, Writer, require_found
from .errors import (
    BackendConnectionError,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    NameTooLong,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
    UnsupportedOperation,
)
from .rest_transfers import RestWriter, Send

LARGEST = 512 << 20
"""Bytes of a value that is taken, unless told otherwise."""

IN_MEMORY = 2 << 20
"""Bytes of a value that are held in memory on its way."""

_BATCH = 1000
"""Entries of a listing that are fetched at a time."""

_METHODS = (
    "create",
    "destroy",
    "open",
    "close",
    "mkdir",
    "rmdir",
    "info",
    "load",
    "store",
    "delete",
    "move",
    "list",
)


class Foreign(Protocol):
    """The methods of borgstore's `BackendBase` that are used here; more than these are not."""

    def create(self) -> None: ...
    def destroy(self) -> None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def mkdir(self, name: str) -> None: ...
    def rmdir(self, name: str) -> None: ...
    def info(self, name: str) -> Any: ...
    def load(self, name: str, *, size: int | None = None, offset: int = 0) -> bytes: ...
    def store(self, name: str, value: bytes | memoryview) -> None: ...
    def delete(self, name: str) -> None: ...
    def move(self, curr_name: str, new_name: str) -> None: ...
    def list(self, name: str) -> Iterable[Any]: ...


def as_backend(given: object) -> Backend:
    """Return a Backend as it is, and an object of borgstore's interface adapted.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, Backend):
        return given
    missing = [name for name in _METHODS if not callable(getattr(given, name, None))]
    if missing:
        raise TypeError(
            f"a {type(given).__name__} is no backend: it has no method {', '.join(missing)}"
        )
    return Adapted(given)  # type: ignore[arg-type]  # that was just looked at


class Adapted(Backend):
    """A borgstore backend object as a Backend.

    Args:
        inner: the object, not open.
        largest: bytes of a value that is taken.
        at_once: calls that the object gets at a time; more than one only if it is thread-safe.
    """

    def __init__(self, inner: Foreign, *, largest: int = LARGEST, at_once: int = 1) -> None:
        if at_once < 1 or largest < 0:
            raise ValueError(f"at_once={at_once}, largest={largest}")
        self.inner = inner
        self.largest = largest
        self.capabilities = Capabilities(
            concurrent=at_once > 1, ranges=True, move=True, streaming=False
        )
        self._slots = threading.BoundedSemaphore(at_once)
        self._creating = threading.Lock()  # as near to atomic as such an object gets
        self._opened = False

    def __repr__(self) -> str:
        return f"Adapted({type(self.inner).__name__})"

    @contextmanager
    def _calling(self, what: str) -> Iterator[Foreign]:
        """Hand out the object for a call; what it raises leaves as one of our errors."""
        with self._slots:
            try:
                yield self.inner
            except (BackendError, InvalidName):
                raise
            except Exception as error:  # whatever a foreign object raises
                raise _translated(error, what) from error

    def _must_be_open(self) -> None:
        if not self._opened:
            raise BackendMustBeOpen(f"{self!r} is not open")

    def _must_be_closed(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen(f"{self!r} is open")

    # -- the place itself

    def create(self) -> None:
        self._must_be_closed()
        with self._calling("create") as inner:
            inner.create()

    def destroy(self) -> None:
        self._must_be_closed()
        with self._calling("destroy") as inner:
            inner.destroy()

    def open(self) -> None:
        self._must_be_closed()
        with self._calling("open") as inner:
            inner.open()
        self._opened = True

    def close(self) -> None:
        self._must_be_open()
        self._opened = False
        with self._calling("close") as inner:
            inner.close()

    def quota(self) -> Quota:
        ask: Callable[[], Any] | None = getattr(self.inner, "quota", None)
        self._must_be_open()
        if ask is None:
            return Quota()
        with self._calling("quota"):
            found = ask()
            return Quota(int(found["limit"]), int(found["usage"]))

    # -- folders

    def mkdir(self, name: str) -> None:
        check_folder(name)
        self._must_be_open()
        if name:
            with self._calling(name) as inner:
                inner.mkdir(name)

    def rmdir(self, name: str) -> None:
        check_path(name)
        found = self.info(name)
        if not found.exists:
            raise ObjectNotFound(name)
        if not found.directory:
            raise BackendError(f"{name}: is an item, not a folder")
        with self._calling(name) as inner:
            # Not every object looks itself.
            if next(iter(inner.list(name)), None) is not None:
                raise BackendError(f"{name}: is not empty")
            inner.rmdir(name)

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        self._must_be_open()
        return self._entries(name)

    def _entries(self, name: str) -> Iterator[ItemInfo]:
        entries: Iterator[Any] | None = None
        while True:
            self._must_be_open()
            with self._calling(name) as inner, _no_such(name, NotADirectoryError):
                entries = iter(inner.list(name)) if entries is None else entries
                batch = [*islice(entries, _BATCH)]
            for info in batch:
                if not is_reserved(info.name):
                    yield _ours(info, info.name)
            if len(batch) < _BATCH:
                return

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        self._must_be_open()
        if name == "":
            return ItemInfo("", exists=True, size=0, directory=True)
        with self._calling(name) as inner:
            return _ours(inner.info(name), name)

    # -- items

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        check_path(name)
        found = require_found(self.info(name))
        first = max(0, found.size + offset) if offset < 0 else min(offset, found.size)
        wanted = found.size - first if size is None else max(0, min(size, found.size - first))
        if wanted > self.largest:
            raise self.too_large(name, wanted)
        if wanted == 0 < found.size:
            return ValueReader(b"", found.size)
        if wanted == found.size:
            value = self.load(name)
            return ValueReader(value, len(value))
        with self._calling(name) as inner, _no_such(name, IsADirectoryError):
            return ValueReader(inner.load(name, offset=first, size=wanted), found.size)

    def load(self, name: str, *, offset: int = 0, size: int | None = None) -> bytes:
        check_path(name)
        if offset or size is not None:
            return super().load(name, offset=offset, size=size)
        self._must_be_open()
        with self._calling(name) as inner, _no_such(name, IsADirectoryError):
            return bytes(inner.load(name))

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        check_path(name)
        self._must_be_open()
        if size is not None and size > self.largest:
            raise self.too_large(name, size)

        def send(kept: IO[bytes], size: int, _digest: str) -> None:
            kept.seek(0)
            self._put(name, kept.read(size), if_absent=if_absent)

        return WholeWriter(self, name, send, size, expected_hash)

    def store(self, name: str, value: bytes | bytearray | memoryview) -> None:
        check_path(name)
        whole = value if isinstance(value, bytes) else memoryview(value).cast("B")
        if len(whole) > self.largest:
            raise self.too_large(name, len(whole))
        self._put(name, whole, if_absent=False)

    def _put(self, name: str, value: bytes | memoryview, *, if_absent: bool) -> None:
        self._must_be_open()
        with self._creating if if_absent else nullcontext():
            if if_absent and self.info(name).exists:
                raise ObjectExists(f"{name} exists")
            with self._calling(name) as inner:
                inner.store(name, value)

    def too_large(self, name: str, size: int) -> BackendError:
        """Return the error for a value of so many bytes."""
        return UnsupportedOperation(
            f"{name}: {size} bytes are more than the {self.largest} that are taken by a place "
            "which moves whole values; Adapted(…, largest=BYTES) takes more"
        )

    def delete(self, name: str) -> None:
        check_path(name)
        require_found(self.info(name))
        with self._calling(name) as inner:
            inner.delete(name)

    def move(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=False)

    def move_if_absent(self, name: str, new_name: str) -> None:
        self._move(name, new_name, if_absent=True)

    def _move(self, name: str, new_name: str, *, if_absent: bool) -> None:
        check_path(name)
        check_path(new_name)
        require_found(self.info(name))  # an object may move folders, too
        with self._creating if if_absent else nullcontext():
            if if_absent and self.info(new_name).exists:
                raise ObjectExists(f"{new_name} exists")
            if name != new_name:
                with self._calling(name) as inner:
                    inner.move(name, new_name)

    def hash(self, name: str, algorithm: str = "sha256") -> str:
        check_path(name)
        hashlib.new(algorithm)
        native: Callable[[str, str], str] | None = getattr(self.inner, "hash", None)
        if native is None or require_found(self.info(name)).size > self.largest:
            return super().hash(name, algorithm)
        with self._calling(name):
            return native(name, algorithm)


class ValueReader(Reader):
    """Reads a value that was loaded; a large one from a temporary file."""

    def __init__(self, value: bytes, item_size: int) -> None:
        self.item_size = item_size
        self.remaining = len(value)
        self._kept = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed at the end
        try:
            self._kept.write(value)
            self._kept.seek(0)
        except OSError as error:
            self._kept.close()
            raise BackendError(
                f"no room for a value in this machine's temporary folder: {error.strerror}"
            ) from error

    def read(self, size: int) -> bytes:
        if self._kept.closed:
            raise BackendError("the reader is closed")
        data = self._kept.read(max(0, size))
        self.remaining -= len(data)
        return data

    def close(self) -> None:
        self._kept.close()


class TakesWhole(Protocol):
    """A place that is handed whole values, up to a largest size."""

    largest: int

    def too_large(self, name: str, size: int) -> BackendError:
        """Return the error for a value of so many bytes."""


class WholeWriter(RestWriter):
    """Gathers a value as the client of a server does, up to the largest that is taken."""

    def __init__(
        self, place: TakesWhole, name: str, send: Send, size: int | None, expected_hash: str | None
    ) -> None:
        super().__init__(name, send, size, expected_hash)
        self._place = place

    def write(self, data: bytes | bytearray | memoryview) -> None:
        size = self.offset + memoryview(data).nbytes
        if size > self._place.largest:
            raise self._place.too_large(self._name, size)
        super().write(data)


def _ours(info: Any, name: str) -> ItemInfo:
    """Return borgstore's record of an item as ours."""
    if not info.exists:
        return ItemInfo(name, exists=False, size=0, directory=False)
    times = getattr(info, "atime", 0), getattr(info, "mtime", 0)
    return ItemInfo(name, True, int(info.size), bool(info.directory), *times)


@contextmanager
def _no_such(name: str, kind: type[OSError]) -> Iterator[None]:
    """Tell of a folder where an item is wanted, or the other way round, as of one not found."""
    try:
        yield
    except kind as error:
        raise ObjectNotFound(name) from error


_SAME = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, BackendError)
}
_BY_NUMBER = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.EROFS: PermissionDenied,
    errno.ENAMETOOLONG: NameTooLong,
}


def _translated(error: Exception, what: str) -> BackendError:
    """Return our error for what an object raised: of the same name, or by what it is."""
    text = str(error) or type(error).__name__
    for kind in type(error).__mro__:
        if kind.__name__ in _SAME:
            return _SAME[kind.__name__](text)
    if isinstance(error, ConnectionError | TimeoutError):
        return BackendConnectionError(text)
    if isinstance(error, OSError) and error.errno in _BY_NUMBER:
        return _BY_NUMBER[error.errno](text)
    if isinstance(error, ValueError):
        return UnsupportedOperation(f"{what}: refused by borgstore's rules: {text}")
    return BackendError(f"{what}: {type(error).__name__}: {text}")
