"""A place in this process's memory: for tests, and the reference of what `base.py` promises.

`memory:` is a place of its own, `memory:NAME` the same place for everybody in this process who
says that name. Nothing of it survives the process, and no other process sees it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from ..names import RESERVED_PREFIX, check_folder, check_path, is_reserved
from .base import CHUNK, Backend, Capabilities, ItemInfo, Reader, Writer
from .errors import (
    BackendAlreadyExists,
    BackendDoesNotExist,
    BackendError,
    BackendMustBeOpen,
    BackendMustNotBeOpen,
    BackendURLInvalid,
    ContentMismatch,
    ObjectExists,
    ObjectNotFound,
)

_QUARANTINE = f"{RESERVED_PREFIX}-quarantine"


@dataclass(frozen=True, slots=True)
class _Item:
    """A value, in chunks that are all CHUNK bytes long but for the last."""

    chunks: tuple[bytes, ...]
    size: int
    mtime: float


@dataclass(slots=True)
class _Folder:
    """Entries by name. A listing reads the dictionary as it is, without a lock or a copy;
    whoever changes the folder next changes a copy (`_Folder.change`)."""

    entries: dict[str, _Item | _Folder] = field(default_factory=dict)
    being_listed: bool = False

    def change(self) -> dict[str, _Item | _Folder]:
        if self.being_listed:
            self.entries = dict(self.entries)
            self.being_listed = False
        return self.entries


@dataclass(slots=True)
class _Draft:
    """What a writer has so far; moves between writers by checkpoints."""

    name: str
    size: int | None
    if_absent: bool
    expected_hash: str | None
    chunks: list[bytes] = field(default_factory=list)
    tail: bytearray = field(default_factory=bytearray)

    @property
    def offset(self) -> int:
        return len(self.chunks) * CHUNK + len(self.tail)

    def finished(self) -> _Item:
        """Return the item, or raise ContentMismatch."""
        if self.size is not None and self.size != self.offset:
            raise ContentMismatch(f"{self.name}: {self.offset} bytes came, not {self.size}")
        chunks = (*self.chunks, bytes(self.tail)) if self.tail else tuple(self.chunks)
        if self.expected_hash is not None:
            digest = hashlib.sha256()
            for chunk in chunks:
                digest.update(chunk)
            if digest.hexdigest() != self.expected_hash:
                raise ContentMismatch(f"{self.name}: the bytes do not have the expected hash")
        return _Item(chunks, self.offset, time.time())


class _Place:
    """The tree behind all backends of one name. `root` is None while the place does not exist."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.root: _Folder | None = None
        self.drafts: dict[str, _Draft] = {}

    def find(self, name: str) -> _Item | _Folder | None:
        """Return what is at `name`. Call with the lock held."""
        node: _Item | _Folder | None = self.existing_root()
        for segment in name.split("/") if name else ():
            if not isinstance(node, _Folder):
                return None
            node = node.entries.get(segment)
        return node

    def make_folder(self, name: str) -> _Folder:
        """Return the folder `name`, made with its parents. Call with the lock held."""
        node = self.existing_root()
        for segment in name.split("/") if name else ():
            child = node.entries.get(segment)
            if child is None:
                child = node.change()[segment] = _Folder()
            if not isinstance(child, _Folder):
                raise BackendError(f"{name}: {segment!r} is an item, not a folder")
            node = child
        return node

    def check_target(self, name: str, *, if_absent: bool) -> None:
        """Raise if no item may be put at `name`. Call with the lock held."""
        target = self.find(name)
        if isinstance(target, _Folder):
            raise BackendError(f"{name}: is a folder")
        if if_absent and target is not None:
            raise ObjectExists(name)
        parent = name
        while parent := parent.rpartition("/")[0]:
            if isinstance(self.find(parent), _Item):
                raise BackendError(f"{name}: {parent!r} is an item, not a folder")

    def put(self, name: str, item: _Item) -> None:
        """Put an item at a checked target. Call with the lock held."""
        folder, _, last = name.rpartition("/")
        self.make_folder(folder).change()[last] = item

    def take(self, name: str) -> _Item:
        """Remove and return an item, or raise ObjectNotFound. Call with the lock held."""
        folder, _, last = name.rpartition("/")
        parent = self.find(folder)
        item = parent.entries.get(last) if isinstance(parent, _Folder) else None
        if not isinstance(parent, _Folder) or not isinstance(item, _Item):
            raise ObjectNotFound(name)
        del parent.change()[last]
        return item

    def existing_root(self) -> _Folder:
        if self.root is None:
            raise BackendDoesNotExist("the memory place was destroyed or never created")
        return self.root


class MemoryReader(Reader):
    """Reads the value that was there when it was opened, whatever happens to the name since."""

    def __init__(self, item: _Item, offset: int, size: int | None) -> None:
        start = max(0, item.size + offset) if offset < 0 else min(offset, item.size)
        rest = item.size - start
        self.item_size = item.size
        self.remaining = rest if size is None else max(0, min(size, rest))
        self._item: _Item | None = item
        self._position = start

    @property
    def version(self) -> str:
        return str(id(self._item))  # no other has it while this one is held

    def read(self, size: int) -> bytes:
        if self._item is None:
            raise BackendError("the reader is closed")
        want = min(size, self.remaining)
        if want <= 0:
            return b""
        index, start = divmod(self._position, CHUNK)
        data = self._item.chunks[index][start : start + want]
        self._position += len(data)
        self.remaining -= len(data)
        return data

    def read_nowait(self, size: int) -> bytes:
        return self.read(size)

    def close(self) -> None:
        self._item = None


class MemoryWriter(Writer):
    """Gathers chunks; they become the item by `commit`."""

    def __init__(self, backend: Memory, draft: _Draft) -> None:
        self._backend = backend
        self._draft: _Draft | None = draft

    def _open_draft(self) -> _Draft:
        if self._draft is None:
            raise BackendError("the writer has ended")
        return self._draft

    def write(self, data: bytes | bytearray | memoryview) -> None:
        draft = self._open_draft()
        view = memoryview(data).cast("B")
        while view:
            taken = view[: CHUNK - len(draft.tail)]
            draft.tail += taken
            view = view[len(taken) :]
            if len(draft.tail) == CHUNK:
                draft.chunks.append(bytes(draft.tail))
                draft.tail.clear()

    def check(self) -> None:
        self._open_draft().finished()

    def commit(self) -> None:
        draft = self._open_draft()
        item = draft.finished()
        place = self._backend.opened_place()
        with place.lock:
            place.check_target(draft.name, if_absent=draft.if_absent)
            place.put(draft.name, item)
        self._draft = None

    def commit_over(self, kept: str) -> None:
        draft = self._open_draft()
        item = draft.finished()
        place = self._backend.opened_place()
        with place.lock:
            place.check_target(draft.name, if_absent=False)
            place.check_target(check_path(kept), if_absent=True)
            place.put(kept, place.take(draft.name))
            place.put(draft.name, item)
        self._draft = None

    def abort(self) -> None:
        self._draft = None

    def checkpoint(self) -> str:
        draft = self._open_draft()
        place = self._backend.opened_place()
        token = secrets.token_hex(16)
        with place.lock:
            place.drafts[token] = draft
        self._draft = None
        return token

    @property
    def offset(self) -> int:
        return self._open_draft().offset


class Memory(Backend):
    """One opening of a memory place."""

    capabilities = Capabilities(
        atomic_create=True,
        ranges=True,
        resumable_write=True,
        move=True,
        mtime=True,
        shared=False,
    )

    def __init__(self, place: _Place | None = None) -> None:
        self._place = place or _Place()
        self._opened = False

    def opened_place(self) -> _Place:
        """Return the tree, or raise BackendMustBeOpen."""
        if not self._opened:
            raise BackendMustBeOpen("the memory place is not open")
        return self._place

    def create(self) -> None:
        self._must_be_closed()
        with self._place.lock:
            if self._place.root is not None:
                raise BackendAlreadyExists("the memory place exists already")
            self._place.root = _Folder()

    def destroy(self) -> None:
        self._must_be_closed()
        with self._place.lock:
            self._place.existing_root()
            self._place.root = None
            self._place.drafts.clear()

    def open(self) -> None:
        self._must_be_closed()
        with self._place.lock:
            self._place.existing_root()
        self._opened = True

    def close(self) -> None:
        self.opened_place()
        self._opened = False

    def mkdir(self, name: str) -> None:
        check_folder(name)
        place = self.opened_place()
        with place.lock:
            place.make_folder(name)

    def rmdir(self, name: str) -> None:
        check_path(name)
        place = self.opened_place()
        parent, _, last = name.rpartition("/")
        with place.lock:
            folder = place.find(name)
            if folder is None:
                raise ObjectNotFound(name)
            if not isinstance(folder, _Folder):
                raise BackendError(f"{name}: is an item, not a folder")
            if folder.entries:
                raise BackendError(f"{name}: is not empty")
            del place.make_folder(parent).change()[last]

    def info(self, name: str) -> ItemInfo:
        check_folder(name)
        place = self.opened_place()
        with place.lock:
            return _info(name, place.find(name))

    def list(self, name: str) -> Iterator[ItemInfo]:
        check_folder(name)
        place = self.opened_place()
        with place.lock:
            folder = place.find(name)
            if not isinstance(folder, _Folder):
                raise ObjectNotFound(name)
            folder.being_listed = True
            entries = folder.entries
        return (_info(last, node) for last, node in entries.items() if not is_reserved(last))

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> MemoryReader:
        check_path(name)
        place = self.opened_place()
        with place.lock:
            item = place.find(name)
        if not isinstance(item, _Item):
            raise ObjectNotFound(name)
        return MemoryReader(item, offset, size)

    def open_reader_nowait(
        self, name: str, *, offset: int = 0, size: int | None = None
    ) -> Reader | None:
        return self.open_reader(name, offset=offset, size=size)

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        check_path(name)
        place = self.opened_place()
        with place.lock:
            place.check_target(name, if_absent=False)
        return MemoryWriter(self, _Draft(name, size, if_absent, expected_hash))

    def resume_writer(self, token: str) -> Writer:
        place = self.opened_place()
        with place.lock:
            draft = place.drafts.pop(token, None)
        if draft is None:
            raise ObjectNotFound(f"no such checkpoint: {token}")
        return MemoryWriter(self, draft)

    def abort_writer(self, token: str) -> None:
        place = self.opened_place()
        with place.lock:
            place.drafts.pop(token, None)

    def delete(self, name: str) -> None:
        check_path(name)
        place = self.opened_place()
        with place.lock:
            place.take(name)

    def move(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        place = self.opened_place()
        with place.lock:
            if not isinstance(place.find(name), _Item):
                raise ObjectNotFound(name)
            place.check_target(new_name, if_absent=False)
            place.put(new_name, place.take(name))

    def move_if_absent(self, name: str, new_name: str) -> None:
        check_path(name)
        check_path(new_name)
        place = self.opened_place()
        with place.lock:
            if not isinstance(place.find(name), _Item):
                raise ObjectNotFound(name)
            place.check_target(new_name, if_absent=True)
            place.put(new_name, place.take(name))

    def quarantine(self, name: str) -> str:
        check_path(name)
        place = self.opened_place()
        kept = f"{_QUARANTINE}/{secrets.token_hex(8)}/{name}"
        with place.lock:
            place.put(kept, place.take(name))
        return kept

    def _must_be_closed(self) -> None:
        if self._opened:
            raise BackendMustNotBeOpen("the memory place is open")


def _info(name: str, node: _Item | _Folder | None) -> ItemInfo:
    if node is None:
        return ItemInfo(name, exists=False, size=0, directory=False)
    if isinstance(node, _Folder):
        return ItemInfo(name, exists=True, size=0, directory=True)
    return ItemInfo(name, exists=True, size=node.size, directory=False, mtime=node.mtime)


_named: dict[str, _Place] = {}
_named_lock = threading.Lock()


def from_url(url: str) -> Backend:
    """Return the backend for `memory:` (a place of its own) or `memory:NAME` (shared by name).

    Raises:
        BackendURLInvalid: not such a URL.
    """
    scheme, _, name = url.partition(":")
    if scheme.lower() != "memory" or any(c in name for c in "/?#"):
        _invalid()
    if not name:
        return Memory()
    with _named_lock:
        return Memory(_named.setdefault(name, _Place()))


def _invalid() -> NoReturn:
    raise BackendURLInvalid("a place in memory is written memory: or memory:NAME")
