"""Clearing away: whole places, and what writers that died left in a bucket."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from .errors import ObjectNotFound, UnsupportedOperation
from .posixfs_leftovers import PART_AGE
from .s3_requests import Requests
from .s3_target import KEPT, upload_tag
from .s3_uploads import Upload

T = TypeVar("T")

Repeat = Callable[[Callable[[], None]], None]
"""Does something until it succeeds."""

_BATCH = 1000

_NO_XML = re.compile("[^\t\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML does not carry as it is, so that such a key cannot be in a batch."""


def remove_all(
    requests: Requests, prefix: str, what: str, repeat: Repeat, *, versions: bool
) -> None:
    """Remove all objects below a prefix, and the uploads that go there.

    Args:
        versions: all that the bucket keeps of them, too.
    """
    keys: Iterable[tuple[str, str | None]]
    if versions:
        keys = requests.versions(prefix, what)
    else:
        keys = ((found.key, None) for found in requests.keys(prefix, what))
    rest = iter(keys)
    while batch := [*islice(rest, _BATCH)]:
        repeat(lambda: _remove(requests, batch, what))
    _abandon_all(requests, prefix, what)


def _remove(requests: Requests, batch: list[tuple[str, str | None]], what: str) -> None:
    single = [each for each in batch if _NO_XML.search(each[0])]
    together = [each for each in batch if not _NO_XML.search(each[0])]
    try:
        if together:
            requests.delete_batch(together, what)
    except UnsupportedOperation:  # so at Google's service of this protocol
        single = batch
    for key, version in single:
        requests.delete(key, what, version=version, etag=None)


def _abandon_all(requests: Requests, prefix: str, what: str) -> None:
    for upload in _uploads(requests, prefix, what):
        requests.abandon(upload.key, upload.upload_id, what)


def _uploads(requests: Requests, prefix: str, what: str) -> list[Upload]:
    try:
        return requests.uploads(prefix, what)
    except UnsupportedOperation:
        return []  # such a service clears them away itself, or not at all
    except ObjectNotFound:
        return []  # rclone's way to say that a bucket has none


def reap(requests: Requests, prefix: str, what: str, older_than: float) -> int:
    """Give up the uploads below a prefix to which nothing came for so many seconds; return how
    many. Those of checkpoints, and the checkpoints' own bytes, live for PART_AGE."""
    now = time.time()
    removed, spared = 0, set()
    for kept in requests.keys(prefix + KEPT, what):
        if now - kept.mtime < max(older_than, PART_AGE):
            spared.add(kept.key.removeprefix(prefix + KEPT).partition("-")[0])
        else:
            requests.delete(kept.key, what, etag=None)
            removed += 1
    for upload in _uploads(requests, prefix, what):
        if upload_tag(upload.upload_id) in spared or now - upload.begun < older_than:
            continue
        if now - _last_sign(requests, upload, what) >= older_than:
            requests.abandon(upload.key, upload.upload_id, what)
            removed += 1
    return removed


def _last_sign(requests: Requests, upload: Upload, what: str) -> float:
    """Return when something last came of an upload, in seconds since the epoch."""
    try:
        parts = requests.parts(upload.key, upload.upload_id, what)
    except ObjectNotFound:
        return time.time()  # somebody has ended it just now
    return max((came for _, came in parts), default=upload.begun)
