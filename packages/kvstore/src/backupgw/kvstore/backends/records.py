"""What a place tells of itself and of what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ItemInfo(NamedTuple):
    """What is known of an item or folder; the first six fields are borgstore's.

    `name` is the last segment in a listing and the full name in answers about one item. `size` is
    in bytes, `atime` and `mtime` are seconds since the epoch, 0 where the place does not tell.
    """

    name: str
    exists: bool
    size: int
    directory: bool
    atime: float = 0
    mtime: float = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a place does natively. Whatever is False is done without, or refused with a reason."""

    concurrent: bool = True
    """Operations overlap; nothing serialises unrelated ones."""
    atomic_create: bool = False
    """Of several writers with if_absent for one name, exactly one commits."""
    claimed: bool = False
    """atomic_create is so among those who share a ledger of names (`layers.claims`), not by the
    place itself: there each writer looks when it commits, and another gateway may know nothing of
    the ledger."""
    ranges: bool = False
    """A reader with an offset fetches no more than it was asked for."""
    resumable_write: bool = False
    """Writers have checkpoints that another process can resume."""
    move: bool = False
    copy: bool = False
    hash: bool = False
    mtime: bool = False
    parallel_lists: bool = False
    """Whoever lists many folders should list several at a time: each list waits for a service
    elsewhere, which does not bring the neighbours along."""
    local_path: bool = False
    """Items are files of this machine."""
    quota: bool = False
    snapshots: bool = False
    case_sensitive: bool = True
    streaming: bool = True
    """False for adapted providers that move whole values."""
    shared: bool = True
    """Another backend of the same URL, in any process, sees the same items. False for places that
    live in one process."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Bytes allowed and bytes used; -1 where the place does not say."""

    limit: int = -1
    usage: int = -1


class FileSpan(NamedTuple):
    """Bytes of a file of this machine: an open descriptor, the first byte and how many."""

    fd: int
    offset: int
    size: int


class Loaded(NamedTuple):
    """A piece of an item, and the size of the whole item in bytes."""

    data: bytes | bytearray
    item_size: int
