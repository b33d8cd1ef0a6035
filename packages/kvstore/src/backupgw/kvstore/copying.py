"""Copying from any place to any place: parallel, repeatable, verified.

A copy that was interrupted, however hard, is carried on by doing it again: what is at the target
already is left alone, and since a value is visible whole or not at all, nothing there is half of
anything. Memory is bounded by the number of workers, not by what is copied.

What counts as being there already is `Compare`. Without a hash that both places know, the size
must be the same and the target's value younger than the source's, since it was copied from it; an
item whose name is the SHA-256 of its content, as in restic's repositories, is known by name and
size.
"""

from __future__ import annotations

import hashlib
import queue
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .backends.base import CHUNK, Backend, ItemInfo, Reader
from .backends.errors import (
    BackendError,
    ContentMismatch,
    ObjectNotFound,
    QuotaExceeded,
    UnsupportedOperation,
)
from .copying_records import Compare, Copied, Outcome, Side, Totals
from .layers.retry_schedule import Schedule, Trials
from .names import InvalidName, check_folder, joined
from .walking import walk

__all__ = ["Compare", "Copied", "Copy", "Outcome", "Side", "Totals"]

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_HOPELESS = 20
"""Items in a row that a place failed for a moment, each tried several times: it is down."""
_PATIENCE = 60.0
"""Seconds without a byte or an answer after which the first item that fails says the same: some
places take long to say that they are not there."""


@dataclass(frozen=True, slots=True)
class _Task:
    name: str
    new_name: str
    info: ItemInfo


class _Stopped(Exception):
    """Somebody ended the copy; no item's failure."""


class Copy:
    """One copy of an item, or of all below a folder, folders that are empty included.

    Args:
        source: the item, or the folder whose content is copied.
        target: the new item, or the folder that gets the content.
        workers: items at a time.
        verify: read everything back and compare it with what was read from the source; what is
            there already is compared by hash too. A copy that differs is set aside, or deleted
            where the place cannot.
        dry_run: only look what would be copied; `COPIED` then means that.
        on_item: called with each item, by several threads but never at once.
        schedule: how often and how long what fails for a moment is tried again.
    """

    def __init__(
        self,
        source: Side,
        target: Side,
        *,
        workers: int = 8,
        compare: Compare = Compare.AUTO,
        verify: bool = False,
        dry_run: bool = False,
        on_item: Callable[[Copied], None] | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"a copy needs at least one worker, not {workers}")
        check_folder(source.name)
        check_folder(target.name)
        self._source = source
        self._target = target
        self._workers = workers
        self._compare = Compare.HASH if verify else compare
        self._verify = verify
        self._dry_run = dry_run
        self._on_item = on_item
        self._stop = threading.Event()
        # Waiting ends with the copy.
        self._schedule = replace(schedule or Schedule(), sleep=self._wait)
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._totals = Totals()
        self._moved = 0
        self._in_a_row = 0
        self._alive = self._schedule.clock()
        self._defect: BaseException | None = None

    @property
    def totals(self) -> Totals:
        """What was done so far."""
        with self._lock:
            return replace(self._totals)

    @property
    def moved(self) -> int:
        """Bytes done so far, those of items that are under way included."""
        with self._lock:
            return self._moved + self._totals.present_bytes

    def stop(self) -> None:
        """End the copy soon; what is under way is given up, nothing stays half-done."""
        self._stop.set()

    def run(self) -> Totals:
        """Do it, and return when it is done.

        Raises:
            ObjectNotFound: there is nothing at the source.
            BackendError: the source's folder cannot be listed, or lies within the target's.
        """
        info = self._source.place.info(self._source.name)
        if not info.exists:
            raise ObjectNotFound(f"{self._source.name}: there is no such item or folder")
        self._check_apart(folder=info.directory)
        tasks = queue.Queue[_Task | None](maxsize=4 * self._workers)
        crew = [
            threading.Thread(target=self._work, args=(tasks,), name=f"copy-{n}", daemon=True)
            for n in range(self._workers)
        ]
        for thread in crew:
            thread.start()
        try:
            for task in self._tasks(info):
                tasks.put(task)
                if self._stop.is_set():
                    break
        except BaseException:
            self._stop.set()
            raise
        finally:
            for _ in crew:
                tasks.put(None)
            for thread in crew:
                thread.join()
        if self._defect is not None:
            raise self._defect
        return self.totals

    # -- what there is to do

    def _tasks(self, info: ItemInfo) -> Iterator[_Task]:
        source, target = self._source, self._target
        if not info.directory:
            yield _Task(source.name, target.name, info)
            return
        cut = len(source.name) + 1 if source.name else 0
        for found in walk(source.place, source.name, on_error=self._not_listed):
            if found.info.directory and not (found.left and found.entries == 0):
                continue
            yield _Task(found.path, joined(target.name, found.path[cut:]), found.info)

    def _not_listed(self, folder: str, error: BackendError) -> None:
        self._tell(Copied(folder, Outcome.FAILED, 0, f"cannot be listed: {_text(error)}"))

    def _check_apart(self, *, folder: bool) -> None:
        source, target = self._source, self._target
        if source.place is not target.place:
            return
        if source.name == target.name or (folder and _overlap(source.name, target.name)):
            raise BackendError(
                f"{source.name or 'the whole place'} cannot be copied to "
                f"{target.name or 'the whole place'}: one lies in the other"
            )

    # -- the workers

    def _work(self, tasks: queue.Queue[_Task | None]) -> None:
        while (task := tasks.get()) is not None:
            if self._stop.is_set():
                continue  # the one who fills the queue must not wait for ever
            try:
                self._do(task)
            except _Stopped:
                continue
            except BaseException as error:  # noqa: BLE001 - raised again by run
                self._defect = error
                self._stop.set()

    def _do(self, task: _Task) -> None:
        trials = Trials(self._schedule)
        while True:
            self._check_stop()
            try:
                done = self._attempt(task)
                break
            except (BackendError, InvalidName) as error:
                try:
                    if isinstance(error, InvalidName):
                        raise
                    trials.pause(error)
                except (BackendError, InvalidName):
                    self._failed(task, error)
                    return
        with self._lock:
            self._in_a_row = 0
            self._alive = self._schedule.clock()
        if done is not None:
            self._tell(Copied(task.name, done, task.info.size))

    def _failed(self, task: _Task, error: BackendError | InvalidName) -> None:
        self._tell(Copied(task.name, Outcome.FAILED, task.info.size, _text(error)))
        if not isinstance(error, BackendError):
            return
        if isinstance(error, QuotaExceeded):
            self._give_up(f"the target has no room: {_text(error)}")
        elif error.retryable:
            with self._lock:
                self._in_a_row += 1
                silence = self._schedule.clock() - self._alive
                row = self._in_a_row
            if row >= _HOPELESS:
                self._give_up(f"{row} items in a row failed, the last: {_text(error)}")
            elif silence > _PATIENCE:
                self._give_up(f"nothing went for {silence:.0f} s: {_text(error)}")

    def _give_up(self, why: str) -> None:
        with self._lock:
            self._totals.gave_up = self._totals.gave_up or why
        self._stop.set()

    def _attempt(self, task: _Task) -> Outcome | None:
        """Do a task; return what to tell, None for a folder."""
        target = self._target.place
        if task.info.directory:
            if not self._dry_run:
                target.mkdir(task.new_name)
            return None
        try:
            if self._is_there(task):
                return Outcome.PRESENT
            if not self._dry_run:
                digest = self._copied(task)
                if digest is not None:
                    self._check(task.new_name, digest)
        except _Gone:
            return Outcome.GONE
        return Outcome.COPIED

    def _is_there(self, task: _Task) -> bool:
        source, target = self._source.place, self._target.place
        there = target.info(task.new_name)
        if not there.exists:
            return False
        if there.directory:
            raise BackendError(f"{task.new_name} is a folder at the target")
        if there.size != task.info.size:
            return False
        if self._compare is Compare.SIZE:
            return True
        known = source.capabilities.hash and target.capabilities.hash
        if self._compare is Compare.HASH or known:
            return self._source_hash(task.name) == self._hash(target, task.new_name)
        if _SHA256.match(task.name.rpartition("/")[2]):
            return True
        if there.mtime and task.info.mtime:
            return there.mtime > task.info.mtime
        return True

    def _source_hash(self, name: str) -> str:
        try:
            return self._hash(self._source.place, name)
        except ObjectNotFound:
            raise _Gone from None

    def _hash(self, place: Backend, name: str) -> str:
        """Return an item's SHA-256; where it has to be read for that, `stop` ends it."""
        if place.capabilities.hash:
            return place.hash(name)
        hasher = hashlib.sha256()
        with place.open_reader(name) as reader:
            for chunk in self._chunks(reader):
                hasher.update(chunk)
        return hasher.hexdigest()

    def _copied(self, task: _Task) -> str | None:
        """Copy an item; return the SHA-256 of what was read, where it is to be verified."""
        source, target = self._source.place, self._target.place
        if source is target and target.capabilities.copy:
            digest = self._source_hash(task.name) if self._verify else None
            target.copy(task.name, task.new_name)
            self._count(task.info.size)
            return digest
        try:
            reader = source.open_reader(task.name)
        except ObjectNotFound:
            raise _Gone from None
        moved = 0
        with reader:
            writer = target.open_writer(task.new_name, size=reader.item_size)
            try:
                hasher = hashlib.sha256() if self._verify else None
                for chunk in self._chunks(reader):
                    writer.write(chunk)
                    moved += len(chunk)
                    self._count(len(chunk))
                    if hasher is not None:
                        hasher.update(chunk)
                writer.commit()
            except BaseException:
                self._count(-moved)
                writer.abort()
                raise
        return None if hasher is None else hasher.hexdigest()

    def _chunks(self, reader: Reader) -> Iterator[bytes]:
        while chunk := reader.read(CHUNK):
            self._check_stop()
            yield chunk

    def _check(self, name: str, digest: str) -> None:
        """Read an item back. Raises ContentMismatch after it was taken out of the way."""
        target = self._target.place
        # Twice: what the line, not the place, garbled is whole the second time.
        if self._hash(target, name) == digest or self._hash(target, name) == digest:
            return
        try:
            kept = f"set aside as {target.quarantine(name)}"
        except UnsupportedOperation:
            target.delete(name)
            kept = "deleted"
        raise ContentMismatch(f"{name}: read back, it is not what was written; {kept}")

    # -- bookkeeping

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _count(self, size: int) -> None:
        with self._lock:
            self._moved += size
            if size > 0:
                self._alive = self._schedule.clock()

    def _tell(self, item: Copied) -> None:
        with self._lock:
            totals = self._totals
            match item.outcome:
                case Outcome.COPIED:
                    totals.copied += 1
                    totals.copied_bytes += item.size
                case Outcome.PRESENT:
                    totals.present += 1
                    totals.present_bytes += item.size
                case Outcome.GONE:
                    totals.gone += 1
                case Outcome.FAILED:
                    totals.failed += 1
        if self._on_item is not None:
            with self._telling:
                self._on_item(item)


class _Gone(Exception):
    """The source no longer has the item."""


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/" if other else "") or f"{other}/".startswith(
        f"{one}/" if one else ""
    )


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
