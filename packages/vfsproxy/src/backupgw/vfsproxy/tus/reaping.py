"""Ending uploads that nobody will carry on: those whose time is over, and those to what is deleted.

Everything here blocks; tasks in the background call it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from backupgw.kvstore.backends.errors import BackendError

from ..problems import Problem
from .bodies import Space, forget
from .holds import LEASE
from .records import UploadBusy, UploadStore

logger = logging.getLogger(__name__)

_AT_ONCE = 200


def reap(
    store: UploadStore,
    space_of: Callable[[str], Space | None],
    report: Callable[[int], object] = lambda _done: None,
) -> int:
    """End all uploads whose time is over, and remove what there is of them; return how many.

    Args:
        space_of: returns where the uploads of a folder lie; None where the folder is gone, with
            all that was in it.
        report: called after each with how many are done; raises to end the work.
    """
    done = 0
    seen: set[str] = set()
    while expired := [each for each in store.expired(_AT_ONCE) if each not in seen]:
        for upload_id in expired:
            seen.add(upload_id)
            if end_upload(store, upload_id, space_of):
                done += 1
                report(done)
    return done


def end_below(store: UploadStore, space: Space, folder: str, path: str) -> int:
    """End the uploads that are under way to a path of a folder or to below it; return how many.

    One that a request of another gateway has is told to let go, and left alone.
    """
    done = 0
    seen: set[str] = set()
    while found := [u for u in store.below(folder, path, _AT_ONCE) if u.id not in seen]:
        for upload in found:
            seen.add(upload.id)
            done += end_upload(store, upload.id, lambda _folder: space)
    return done


def end_upload(store: UploadStore, upload_id: str, space_of: Callable[[str], Space | None]) -> bool:
    """End an upload and remove what there is of it; return whether that was possible.

    Args:
        space_of: as `reap` has it.
    """
    try:
        held = store.take(upload_id, LEASE, ending=False)
    except UploadBusy:
        return False  # its request keeps it alive, or ends soon
    if held is None:
        return False
    try:
        space = space_of(held.upload.folder)
        if space is not None:
            forget(space, held.upload)
    except (BackendError, Problem) as error:
        logger.warning("upload %s cannot be removed yet: %s", upload_id, error)
        store.release(held)
        return False
    except BaseException:
        store.release(held)
        raise
    store.drop(held)
    return True
