"""One value on its way into B2: by one request, or as a large file in parts.

https://www.backblaze.com/docs/cloud-storage-large-files: parts have 5 MB at least, but for the
last, and there are 10,000 at most. B2 checks each part's SHA-1.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence

from .b2_session import Bucket, Version
from .errors import BackendError, ObjectExists, ObjectNotFound
from .part_transfers import Part, PartTarget, SentPart
from .plan import Plan

MOST_PARTS = 10_000
MOST_PART = 5_000_000_000
_DOUBLES_EVERY = 1000
"""Parts after which they become twice as large: so a value may have terabytes."""


class B2Target(PartTarget):
    """See `PartTarget`.

    Args:
        bucket: where it goes.
        plan: what `open_writer` was told.
        first: bytes of the first part.
        ready: raises what stands against the item; called before it becomes visible.
        stored: called with the id of the version that was stored, and whether there were others.
    """

    def __init__(
        self,
        bucket: Bucket,
        plan: Plan,
        first: int,
        ready: Callable[[], None],
        stored: Callable[[str], None],
    ) -> None:
        self._bucket = bucket
        self._plan = plan
        self._first = first
        if plan.size is not None:
            self._first = max(first, -(-plan.size // MOST_PARTS))
        self._ready = ready
        self._stored = stored
        self._old: Version | None = None
        self._sha1 = ""

    def part_size(self, number: int) -> int:
        if number > MOST_PARTS:
            raise BackendError(f"{self._plan.name}: it has more than {MOST_PARTS} parts")
        if self._plan.size is not None:
            return self._first
        return min(self._first << min((number - 1) // _DOUBLES_EVERY, 10), MOST_PART)

    def put_whole(self, data: bytes | bytearray) -> None:
        self._refuse_existing()
        self._sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        self._done(self._bucket.put(self._plan.name, data))

    def begin(self) -> str:
        bucket = self._bucket
        told = bucket.translate.call(
            self._plan.name,
            bucket.session.start_large_file,
            bucket.id,
            bucket.file(self._plan.name),
            "b2/x-auto",
            {},
        )
        return str(told["fileId"])

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        bucket = self._bucket
        bucket.translate.call(
            self._plan.name,
            bucket.session.upload_part,
            state,
            part.number,
            len(data),
            sha1,
            io.BytesIO(data),
        )
        return sha1

    def complete(self, state: str, parts: Sequence[SentPart]) -> None:
        self._refuse_existing()
        bucket = self._bucket
        tags = [part.tag for part in parts]
        bucket.translate.call(self._plan.name, bucket.session.finish_large_file, state, tags)
        self._done(state)

    def abandon(self, state: str) -> None:
        bucket = self._bucket
        try:
            bucket.translate.call("", bucket.session.cancel_large_file, state)
        except ObjectNotFound:
            return

    def landed(self, state: str | None, size: int) -> bool:
        bucket = self._bucket
        if state is None:
            newest = bucket.head(self._plan.name)
            if newest is None or newest.size != size:
                return False
            file_id = newest.id
        else:
            file_id = state
        try:
            told = bucket.translate.call("", bucket.session.get_file_info_by_id, file_id)
        except ObjectNotFound:
            return False
        mine = told.get("action") == "upload" and (
            state is not None or told.get("contentSha1") == self._sha1
        )
        if mine:
            self._done(file_id)
        return mine

    def _refuse_existing(self) -> None:
        self._ready()
        self._old = self._bucket.head(self._plan.name)
        if self._plan.if_absent and self._old is not None:
            raise ObjectExists(self._plan.name)

    def _done(self, file_id: str) -> None:
        if self._old is not None:
            self._stored(file_id)
