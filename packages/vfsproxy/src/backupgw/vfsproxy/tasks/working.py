"""A folder while a task works on it: fenced off before, told what became of it afterwards."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.kvstore.copying import Copy, Side, Totals
from backupgw.kvstore.walking import walk
from backupgw.runtime.jobs import JobContext, JobFailed, JobStopped, Stop

from ..folders import catalogue
from ..folders.records import Folder, Status
from ..problems import problem_of
from .pace import Pace, Traffic

if TYPE_CHECKING:
    import threading

    from ..core import Core

log = logging.getLogger(__name__)

BEAT = 2.0
"""Seconds between two looks at how far a copy is."""
REST = 60.0
"""Rest after a slice of removing, while clients ask for things: most of it waits for the disk, as
they do."""


@contextmanager
def working(
    core: Core,
    context: JobContext,
    folder_id: str,
    *,
    expected: Collection[Status],
    during: Status,
    failed: Status,
) -> Iterator[Folder]:
    """Yield the folder, which nobody else changes until the block ends.

    The block says what becomes of it when all went well. When it raises, the folder gets the
    status `failed` with the reason, and the error goes on as one of the task's.

    Args:
        expected: what its status may be; it may also be what an earlier attempt has left.
    """
    try:
        with core.fences.exclusive(folder_id) as connection:
            folder = catalogue.find(connection, folder_id, lock=True)
            if folder is None:
                raise JobFailed("the folder is gone")
            mine = folder.job == context.job.id and folder.status in (during, failed)
            if folder.status not in expected and not mine:
                raise JobFailed(f"the folder is {folder.status}")
            catalogue.change(
                connection,
                folder_id,
                status=during,
                generation=folder.generation + 1,
                job=context.job.id,
                reason=None,
            )
            folder = catalogue.find(connection, folder_id)
            assert folder is not None  # changed in this transaction
    except BackendError as error:
        raise _failure(error, folder_id) from error
    try:
        yield folder
    except JobStopped as stop:
        if stop.reason in (Stop.CANCELLED, Stop.DEADLINE):
            ended(core, folder_id, status=failed, reason=f"the task was {stop.reason.value}")
        raise
    except Exception as error:  # whatever it is, the folder must not stay as if it were worked on
        failure = _failure(error, folder_id)
        reason = None if failed is Status.READY else str(failure)
        ended(core, folder_id, status=failed, reason=reason)
        raise failure from error


def ended(core: Core, folder_id: str, **values: object) -> None:
    """Change a folder's row inside its exclusive fence, with a new generation."""
    with core.fences.exclusive(folder_id) as connection:
        folder = catalogue.find(connection, folder_id, lock=True)
        if folder is not None:
            catalogue.change(connection, folder_id, generation=folder.generation + 1, **values)


def _failure(error: Exception, folder_id: str) -> JobFailed:
    if isinstance(error, JobFailed):
        return error
    told = problem_of(error, f"task of folder {folder_id}")
    retryable = bool(getattr(error, "retryable", False))
    return JobFailed(told.detail, retry=retryable)


class Removal:
    """Files removed by a task, over several folders.

    Attributes:
        files: how many so far.
    """

    def __init__(self, context: JobContext, traffic: Traffic) -> None:
        self._context = context
        self._pace = Pace(context, traffic, rest=REST)
        self.files = 0

    def tree(self, place: Backend, path: str) -> None:
        """Remove all below a folder, and the folder; what is gone already is fine.

        Streams, and stops between two files when the task is to.

        Raises:
            BackendError: something cannot be removed, or is nothing that the place lists. All
                else was removed.
        """
        left: BackendError | None = None
        try:
            for found in walk(place, path):
                self._context.check()
                self._pace.step()
                try:
                    if found.left:
                        place.rmdir(found.path)
                    elif not found.info.directory:
                        place.delete(found.path)
                        self.files += 1
                        self._context.progress(self.files, unit="files", message="removing")
                except ObjectNotFound:
                    continue
                except BackendError as error:
                    if error.retryable or not found.left:
                        raise
                    left = error  # a folder that holds what is not listed
            if left is not None:
                raise left
            place.rmdir(path)
        except ObjectNotFound:
            return


def copy_tree(source: Side, target: Side, context: JobContext, *, exact: bool = False) -> Totals:
    """Copy all below a folder, going on where an earlier attempt has ended.

    Args:
        exact: what is there already is compared byte by byte, as hashes.

    Raises:
        JobFailed: not all of it could be copied.
        JobStopped: the task is to stop.
        BackendError: the source cannot be listed.
    """
    import threading

    from backupgw.kvstore.copying import Compare

    copy = Copy(source, target, workers=4, compare=Compare.HASH if exact else Compare.AUTO)
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(copy, context, over), daemon=True)
    watch.start()
    try:
        totals = copy.run()
    finally:
        over.set()
        watch.join()
    context.check()
    if totals.gave_up:
        raise JobFailed(totals.gave_up, retry=True)
    if totals.failed:
        raise JobFailed(f"{totals.failed} files could not be copied", retry=True)
    return totals


def _watch(copy: Copy, context: JobContext, over: threading.Event) -> None:
    while not over.is_set():
        if context.wait(BEAT):
            copy.stop()
            return
        context.progress(copy.moved, unit="bytes", message="copying")
