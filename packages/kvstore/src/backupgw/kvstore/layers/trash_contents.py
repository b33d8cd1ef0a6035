"""What lies in a trash, for the operator alone: list, restore, expire, empty.

Everything streams: the trash is walked bucket by bucket and folder by folder, and may hold any
number of items. All changes go through the quota that lies around the trash, where there is one,
so that the accounts follow.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from ..backends.base import Backend
from ..backends.errors import (
    BackendError,
    ObjectExists,
    ObjectNotFound,
    UnsupportedOperation,
)
from ..names import KernelPath, check_path, joined
from .base import Layer
from .quota import QuotaLayer
from .trash import TrashLayer, undoing
from .trash_names import ROOT, How, bucket_until, read_path

logger = logging.getLogger(__name__)

AT_ONCE = 10_000
"""Items that one call of `expire` removes at most, so that a job can show progress and stop."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An item in the trash.

    Attributes:
        name: what it was called, and will be when it is restored.
        size: bytes.
        when: seconds since the epoch, when it was deleted or replaced.
        until: seconds since the epoch; from then on expiry may remove it.
        how: deleted, replaced, or replaced by what was restored.
        who: who did it, "" where nobody said.
        path: what it is called now.
    """

    name: str
    size: int
    when: float
    until: float
    how: How
    who: str
    path: KernelPath


@dataclass(slots=True)
class Removed:
    """What an expiry or emptying took away. `more`: there is more to remove."""

    items: int = 0
    bytes: int = 0
    more: bool = False


@dataclass(slots=True)
class Restored:
    """What came back. `kept_newer` items were not, since there is an item of their name."""

    items: int = 0
    bytes: int = 0
    kept_newer: int = 0
    failed: list[str] = field(default_factory=list)
    """Names that could not be restored, with the reason; the first hundred."""
    failures: int = 0


@dataclass(slots=True)
class Contents:
    """How much lies in the trash. `expired` items are those that expiry will take."""

    items: int = 0
    bytes: int = 0
    expired: int = 0
    expired_bytes: int = 0


class Trash:
    """The trash of a place.

    Args:
        place: open; a trash, or a stack of layers with one in it. Quotas that lie directly around
            the trash account for what is done; layers further out, which bind clients, do not bind
            the operator.

    Raises:
        UnsupportedOperation: there is no trash in it.
    """

    def __init__(self, place: Backend) -> None:
        accounts: Backend | None = None
        """The outermost of the quotas that lie directly around the trash."""
        while isinstance(place, Layer) and not isinstance(place, TrashLayer):
            accounts = (accounts or place) if isinstance(place, QuotaLayer) else None
            place = place.inner
        if not isinstance(place, TrashLayer):
            raise UnsupportedOperation(f"{place!r} has no trash")
        self._layer = place
        self._inner = place.inner
        self._place = accounts or place

    # -- looking

    def entries(self, prefix: str = "", *, pattern: str | None = None) -> Iterator[Entry]:
        """Yield what is kept, by the time at which it expires, soonest first.

        Args:
            prefix: with which the names begin; only folders are read that can hold such names.
            pattern: that the names match; `*` stands for any characters, `/` too.
        """
        matches = _matching(pattern)
        for bucket, _ in self._buckets():
            yield from self._below(bucket, prefix, matches)

    def versions(self, name: str) -> list[Entry]:
        """Return all that is kept of one name, newest first."""
        check_path(name)
        found: list[Entry] = []
        for bucket, _ in self._buckets():
            for folder in (name.rpartition("/")[0], name):  # the second for long last segments
                entries = self._in_folder(KernelPath(joined(bucket, folder)), name)
                found += [entry for entry in entries if entry.name == name]
        return sorted(found, key=attrgetter("when"), reverse=True)

    def contents(self, prefix: str = "") -> Contents:
        """Add up what is kept, by looking at all of it."""
        now = self._layer.clock.now()
        contents = Contents()
        for entry in self.entries(prefix):
            contents.items += 1
            contents.bytes += entry.size
            if entry.until <= now:
                contents.expired += 1
                contents.expired_bytes += entry.size
        return contents

    # -- bringing back

    def restore(self, entry: Entry, *, to: str | None = None, replace: bool = False) -> str:
        """Bring an item back; return its name.

        Args:
            to: another name for it.
            replace: put it in place of an item that has the name; that one goes to the trash.

        Raises:
            ObjectExists: there is such an item.
            ObjectNotFound: it is no longer in the trash.
        """
        name = check_path(entry.name if to is None else to)
        try:
            if replace:
                with undoing():
                    self._place.move(entry.path, name)
            else:
                self._place.move_if_absent(entry.path, name)
        except ObjectNotFound as error:
            raise ObjectNotFound(f"{entry.name} is no longer in the trash") from error
        return name

    def restore_name(self, name: str, *, at: float | None = None, replace: bool = False) -> Entry:
        """Bring back the last value of a name, or the one that it had at a time.

        Args:
            at: seconds since the epoch.

        Raises:
            ObjectNotFound: nothing of the kind is in the trash.
            ObjectExists: there is an item of that name, and `replace` was not asked for.
        """
        found = [entry for entry in self.versions(name) if at is None or entry.when > at]
        if not found:
            since = "" if at is None else " that was deleted or replaced since then"
            raise ObjectNotFound(f"{name}: the trash has nothing of that name{since}")
        entry = found[0] if at is None else found[-1]
        self.restore(entry, replace=replace)
        return entry

    def restore_all(
        self,
        prefix: str = "",
        *,
        pattern: str | None = None,
        at: float | None = None,
        replace: bool = False,
        on_restored: Callable[[Entry], None] | None = None,
    ) -> Restored:
        """Bring back the last value of every name, or the one that it had at a time.

        May be repeated: what a restore has replaced is not brought back by the next, which would
        end with another value, but by `restore` alone. An item that cannot be restored does not
        keep the others; the places' failures that may pass (retryable) end it. What was written
        after `at` and then deleted is brought back, too, where nothing else of that name was
        deleted.

        Args:
            at: seconds since the epoch.
            replace: put them in place of items that are there, which go to the trash, and what is
                newer of several values after what is older, or the other way round with `at`.
            on_restored: called after each.
        """
        begun = self._layer.clock.now()
        matches = _matching(pattern)
        restored = Restored()
        # Of several versions the right one has to win: where nothing is replaced it comes first,
        # and otherwise last.
        newest_first = (at is None) != replace
        fills_gaps = at is None and not replace
        buckets = sorted(self._buckets(), key=lambda pair: pair[1], reverse=newest_first)
        for bucket, _ in buckets:
            for folder in self._folders(bucket, prefix):
                found = [
                    entry
                    for entry in self._in_folder(folder, prefix, matches)
                    if entry.when < begun
                    and (at is None or entry.when > at)
                    and (fills_gaps or entry.how is not How.UNDONE)
                ]
                for entry in sorted(found, key=attrgetter("when"), reverse=newest_first):
                    if self._restored(entry, restored, replace=replace) and on_restored:
                        on_restored(entry)
        return restored

    def _restored(self, entry: Entry, restored: Restored, *, replace: bool) -> bool:
        try:
            self.restore(entry, replace=replace)
        except ObjectExists:
            restored.kept_newer += 1
            return False
        except BackendError as error:
            if error.retryable:
                raise
            restored.failures += 1
            if len(restored.failed) < 100:
                restored.failed.append(f"{entry.name}: {error}")
            return False
        restored.items += 1
        restored.bytes += entry.size
        return True

    # -- removing

    def discard(self, name: str) -> None:
        """Delete an item that is there into the trash, whatever layers further out forbid.

        Raises:
            ObjectNotFound: there is none.
        """
        self._place.delete(check_path(name))

    def expire(self, *, most: int = AT_ONCE, trusted: bool = False) -> Removed:
        """Remove for good what has been kept long enough; call again while there is `more`.

        Args:
            most: how many items at most.
            trusted: an operator says that the clock is right.

        Raises:
            ClockDoubted: it may have jumped; nothing was removed.
        """
        now = self._layer.clock.believed(trusted=trusted)
        removed = Removed()
        for bucket, until in self._buckets():
            if until > now:
                break
            self._remove_below(bucket, "", removed, most=most)
            if removed.more:
                break
        return removed

    def empty(self, prefix: str = "", *, force: bool = False) -> Removed:
        """Remove for good all that has expired, with `force` also what has not.

        Raises:
            ClockDoubted: without `force`, as `expire`.
        """
        now = None if force else self._layer.clock.believed()
        removed = Removed()
        for bucket, until in self._buckets():
            if now is None or until <= now:
                self._remove_below(bucket, prefix, removed)
        return removed

    def remove(self, entry: Entry) -> None:
        """Remove one item for good, whether it has expired or not.

        Raises:
            ObjectNotFound: it is no longer in the trash.
        """
        self._place.delete(entry.path)

    def _remove_below(
        self, bucket: KernelPath, prefix: str, removed: Removed, *, most: int | None = None
    ) -> None:
        for folder in self._folders(bucket, prefix, leaving=self._remove_folder):
            for entry in self._in_folder(folder, prefix):
                if removed.items == most:
                    removed.more = True
                    return
                try:
                    self._place.delete(entry.path)
                except ObjectNotFound:
                    continue  # another process is at it too, or it was restored
                removed.items += 1
                removed.bytes += entry.size

    def _remove_folder(self, folder: KernelPath) -> None:
        try:
            self._inner.rmdir(folder)
        except ObjectNotFound:
            return
        except BackendError as error:
            if error.retryable:
                raise
            logger.debug("%s stays: %s", folder, error)  # something was put there meanwhile

    # -- walking

    def _buckets(self) -> list[tuple[KernelPath, float]]:
        """Return the buckets with their time, soonest first: a few dozen at most."""
        found = []
        try:
            for info in self._inner.list(ROOT):
                until = bucket_until(info.name)
                if info.directory and until is not None:
                    found.append((KernelPath(joined(ROOT, info.name)), until))
        except ObjectNotFound:
            return []
        return sorted(found, key=lambda pair: pair[1])

    def _below(
        self, bucket: KernelPath, prefix: str, matches: Callable[[str], bool]
    ) -> Iterator[Entry]:
        for folder in self._folders(bucket, prefix):
            yield from self._in_folder(folder, prefix, matches)

    def _in_folder(
        self, folder: KernelPath, prefix: str, matches: Callable[[str], bool] = bool
    ) -> Iterator[Entry]:
        try:
            for info in self._inner.list(folder):
                kept = None if info.directory else read_path(f"{folder}/{info.name}")
                if kept is None or not kept.name.startswith(prefix) or not matches(kept.name):
                    continue
                yield Entry(
                    kept.name, info.size, kept.when, kept.until, kept.how, kept.who, kept.path
                )
        except ObjectNotFound:
            return  # expired meanwhile

    def _folders(
        self,
        bucket: KernelPath,
        prefix: str,
        leaving: Callable[[KernelPath], None] | None = None,
    ) -> Iterator[KernelPath]:
        """Yield the folders of a bucket that can hold names with the prefix, outer ones first.

        Holds the names of subfolders, never of items, and no list open: paths can be as deep as
        a thousand folders.

        Args:
            leaving: called with a folder after it and those in it were yielded.
        """
        start = prefix.rpartition("/")[0]
        first = KernelPath(joined(bucket, start))
        todo: list[tuple[KernelPath, bool]] = [(first, False)]
        while todo:
            folder, done = todo.pop()
            if done:
                if leaving is not None:
                    leaving(folder)
                continue
            yield folder
            todo.append((folder, True))
            try:
                for info in self._inner.list(folder):
                    below = KernelPath(joined(folder, info.name))
                    if info.directory and below.startswith(prefix, len(bucket) + 1):
                        todo.append((below, False))
            except ObjectNotFound:
                continue


def _matching(pattern: str | None) -> Callable[[str], bool]:
    if pattern is None:
        return bool
    return lambda name: fnmatch.fnmatchcase(name, pattern)
