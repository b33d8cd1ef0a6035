"""One value on its way into B2: by one request, or as a large file in parts.

https://www.backblaze.com/docs/cloud-storage-large-files: parts have 5 MB at least, but for the
last, and there are 10,000 at most. B2 checks each part's SHA-1.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Callable, Sequence

from b2sdk.v3.exception import BadRequest

from ..names import RESERVED_PREFIX, KernelPath
from .b2_session import Bucket, Version
from .errors import BackendError, ObjectExists, ObjectNotFound, PermissionDenied
from .part_transfers import Part, ResumableTarget, SentPart
from .plan import Plan

MOST_PARTS = 10_000
LEAST_PART = 5_000_000
"""Bytes; B2 takes no smaller part but the last."""

MOST_PART = 5_000_000_000
_DOUBLES_EVERY = 1000
"""Parts after which they become twice as large: so a value may have terabytes."""


KEPT = f"{RESERVED_PREFIX}-part-"
"""How the name of a checkpoint's bytes begins, at the root of the place."""

_PARTS_AT_ONCE = 1000


class B2Target(ResumableTarget):
    """See `ResumableTarget`.

    Args:
        bucket: where it goes.
        plan: what `open_writer` was told.
        first: bytes of the first part.
        ready: raises what stands against the item; called before it becomes visible.
        stored: called with the id of the version that was stored, and whether there were others.
        state: of an upload that is carried on.
    """

    def __init__(
        self,
        bucket: Bucket,
        plan: Plan,
        first: int,
        ready: Callable[[], None],
        stored: Callable[[str], None],
        state: str = "",
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
        self._state = state

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
        self._state = str(told["fileId"])
        return self._state

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
        except BackendError as error:
            if not isinstance(error.__cause__, BadRequest):
                raise
            return  # "No active upload for …": it was finished, or cancelled

    def keep(self, data: bytes | bytearray) -> str:
        name = KernelPath(f"{KEPT}{upload_tag(self._state)}-{secrets.token_hex(8)}")
        self._bucket.put(name, data)
        return name

    def kept(self, reference: str) -> bytes:
        return self._bucket.load(self._kept(reference))

    def drop(self, reference: str) -> None:
        for version in self._bucket.versions(self._kept(reference)):
            self._bucket.delete(version)

    def _kept(self, reference: str) -> KernelPath:
        if not reference.startswith(KEPT) or "/" in reference:
            raise ObjectNotFound(f"{self._plan.name}: not a checkpoint's")
        return KernelPath(reference)

    def sent(self, state: str) -> Sequence[SentPart]:
        found: list[SentPart] = []
        start: int | None = 1
        while start is not None:
            try:
                page = self._bucket.translate.call(
                    self._plan.name, self._bucket.session.list_parts, state, start, _PARTS_AT_ONCE
                )
            except PermissionDenied:
                raise
            except BackendError as error:
                if error.retryable:
                    raise
                # What was finished or cancelled is no large file any more, and refused as such.
                raise ObjectNotFound(f"{self._plan.name}: its upload is gone") from error
            found += [
                SentPart(int(each["partNumber"]), int(each["contentLength"]), each["contentSha1"])
                for each in page["parts"]
            ]
            start = page["nextPartNumber"]
        return found

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


def upload_tag(file_id: str) -> str:
    """Return by what a checkpoint's bytes are known to belong to an upload."""
    return hashlib.sha256(file_id.encode()).hexdigest()[:32]
