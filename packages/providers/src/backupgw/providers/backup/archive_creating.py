"""One archive of a set, made once and stored at several places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from backupgw.kvstore.backends.base import Backend, Writer
from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.backends.plan import Plan
from backupgw.kvstore.layers.encrypt_age import Key
from backupgw.kvstore.layers.encrypt_names import ReadableNames
from backupgw.kvstore.layers.encrypt_streams import EncryptWriter
from backupgw.runtime.restic import StopSignal

from ..pieces import Interrupted
from .archive_writing import ArchiveWriter, Counts
from .archives import item_name
from .lanes import AllFailed, Lanes
from .tree import Found, Selection, walk

LEVELS = {"off": 1, "auto": 3, "max": 19}
"""zstd's levels by what settings call it; an archive is always one of zstd's."""


@dataclass(frozen=True)
class Created:
    """What became of an archive.

    Attributes:
        item: its name in each place.
        errors: by place; None where it is stored.
    """

    item: str
    counts: Counts
    errors: Mapping[str, Exception | None]


def create(
    places: Mapping[str, Backend],
    selection: Selection,
    *,
    host: str,
    set_name: str,
    time: datetime,
    key: Key | None,
    compression: str = "auto",
    threads: int = 0,
    on_member: Callable[[Found], None] | None = None,
    on_counts: Callable[[Counts], None] | None = None,
    stop: StopSignal | None = None,
) -> Created:
    """Write an archive to each place; nothing of it is at a place where it could not be whole.

    Args:
        places: open, by name.
        time: when the backup began; the archive is named by it, or by the next second that no
            place has one of.
        key: seals the archive; None leaves it open.
        compression: one of LEVELS.
        threads: that compress, besides this one.
        on_member: told of each entry before it is written; what it raises ends the backup.
        on_counts: given the counts at the beginning, which go on changing.
        stop: ends it before the next piece of the archive.

    Raises:
        Interrupted: it was to end.
        OSError: what is to be backed up is not there.
    """
    item = _free_name(places, host, set_name, time, encrypted=key is not None)
    lanes = Lanes(places, item)
    sink: Writer = lanes
    if key is not None:
        sink = EncryptWriter(
            lanes, key, ReadableNames(), Plan(item, None, if_absent=True, expected_hash=None)
        )

    def write(piece: bytes) -> None:
        _go_on(stop)
        sink.write(piece)

    archive = ArchiveWriter(write, level=LEVELS[compression], threads=threads)
    if on_counts is not None:
        on_counts(archive.counts)
    try:
        for found in walk(selection, lambda *problem: archive.counts.problems.append(problem)):
            _go_on(stop)
            if on_member is not None:
                on_member(found)
            archive.add(found)
        archive.finish()
        sink.commit()
    except AllFailed:
        sink.abort()
    except BaseException:
        sink.abort()
        raise
    return Created(item, archive.counts, lanes.errors)


def _go_on(stop: StopSignal | None) -> None:
    if stop is not None and stop.is_set:
        raise Interrupted("the backup was ended")


def _free_name(
    places: Mapping[str, Backend], host: str, set_name: str, time: datetime, *, encrypted: bool
) -> str:
    while True:
        item = item_name(host, set_name, time, encrypted=encrypted)
        if not any(_taken(place, item) for place in places.values()):
            return item
        time += timedelta(seconds=1)


def _taken(place: Backend, item: str) -> bool:
    try:
        return place.info(item).exists
    except BackendError:
        return False  # writing to it will say what is wrong with it
