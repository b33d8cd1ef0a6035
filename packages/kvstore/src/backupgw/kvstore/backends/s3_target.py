"""One value on its way into a bucket."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import secrets
from collections.abc import Sequence

from ..names import RESERVED_PREFIX
from .errors import BackendError, ObjectExists, ObjectNotFound
from .marked_folders import Folders
from .part_transfers import Part, ResumableTarget, SentPart
from .plan import Plan
from .s3_conditions import Conditions
from .s3_direct import Sending
from .s3_records import Found
from .s3_requests import Requests
from .s3_settings import MOST_PART, MOST_PARTS, Settings

_log = logging.getLogger(__name__)

KEPT = f"{RESERVED_PREFIX}-part-"
"""How the name of a checkpoint's bytes begins, at the root of the place."""

_GROWS_BY = 1000
"""Parts after which they are as large again as the first, where the value's size is unknown."""


_HELD_BACK = 64 << 10
"""Bytes at the end of a value without which it is none: they are sent when all is found right."""

_AT_ONCE = 1 << 20
"""Bytes up to which a value is sent together with the look for an older one."""


class Target(ResumableTarget):
    """An object to be.

    Args:
        settings, requests, folders: of the place.
        root: what every key begins with.
        plan: what open_writer was told.
        conditions: what the service itself refuses to replace.
        state: of an upload that is carried on.
    """

    def __init__(
        self,
        settings: Settings,
        requests: Requests,
        folders: Folders,
        root: str,
        plan: Plan,
        *,
        conditions: Conditions,
        state: str | None = None,
    ) -> None:
        self.parallel = settings.parallel
        self._settings = settings
        self._requests = requests
        self._folders = folders
        self._root = root
        self._name = plan.name
        self._key = root + plan.name
        self._if_absent = plan.if_absent
        self._conditions = conditions
        self._upload, self._mark = _read(state) if state else ("", secrets.token_hex(16))
        self._digest = plan.expected_hash
        self._by_content = plan.if_absent and plan.expected_hash == plan.name.rpartition("/")[2]
        """Whether the value is known by its hash: then what has that name is the same value, or
        damaged, and may be replaced by it."""
        self._tried = False
        self._sending: Sending | None = None
        self._size = plan.size
        self.whole_at_most = settings.whole_at_most if requests.short else 0
        self._growing = plan.size is None and not settings.equal_parts
        self._first = max(settings.part_size, -(-(plan.size or 0) // MOST_PARTS))

    def part_size(self, number: int) -> int:
        if number > MOST_PARTS:
            raise BackendError(
                f"{self._name}: it has more than {MOST_PARTS} parts; its writer must announce its "
                "size, or `part_size` be larger"
            )
        size = self._first + (self._first * (number - 1) // _GROWS_BY if self._growing else 0)
        return min(size, MOST_PART)

    def send_ahead(self, data: bytearray, filled: int) -> None:
        size = self._size
        if self._tried or size is None or self._digest is None:
            return
        if self._sending is None:
            sending = None
            with contextlib.suppress(BackendError):  # who puts it will be told
                refused = self._if_absent and self._conditions.whole
                mark = self._mark if self._if_absent else None
                sending = self._requests.send(
                    *(self._key, size, self._digest, self._name), if_absent=refused, mark=mark
                )
            if sending is None:
                self._tried = True
                return
            self._sending = sending
        end = min(filled, size - _HELD_BACK)
        if end > self._sending.sent and not self._sending.send(data, end):
            self.stop_sending()

    def stop_sending(self) -> None:
        sending, self._sending = self._sending, None
        self._tried = True
        if sending is not None:
            sending.stop()

    def put_whole(self, data: bytes | bytearray) -> None:
        first, sending = not self._tried, self._sending
        self._tried, self._sending = True, None
        refused = self._conditions.whole
        try:
            at_once = first and sending is None and not refused and len(data) <= _AT_ONCE
            if at_once and self._put_looking(data):
                return
            self._prepare(refused=refused)
        except BaseException:
            if sending is not None:
                sending.stop()
            raise
        self._requests.put(
            self._key,
            data,
            self._name,
            if_absent=self._if_absent and refused,
            mark=self._mark if self._if_absent else None,
            digest=self._digest,
            sending=sending,
        )

    def _put_looking(self, data: bytes | bytearray) -> bool:
        """Store a value that is known by its hash, and look what there was, by one round trip;
        False where that has to be done one after the other.

        Raises:
            ObjectExists: there was one. It is whole now, if it was damaged.
        """
        if not self._by_content or self._digest is None:
            return False
        self._folders.before_writing(self._name)
        told = self._requests.look_and_put(
            self._key, data, self._digest, self._name, mark=self._mark
        )
        if told is None:
            return False
        found, etag = told
        if found is not None and found.mark != self._mark:
            exists = ObjectExists(f"{self._name} exists")
            if etag is not None and _was_another(found, etag, data):
                _log.error("%s was damaged, and is replaced by a new upload", self._name)
                exists.mended = True
            raise exists
        return etag is not None

    def begin(self) -> str:
        # Before: some services show the folder from here on, and an empty one is none to them.
        self._folders.make([self._name.rpartition("/")[0]])
        self._upload = self._requests.begin(self._key, self._name, mark=self._mark)
        return json.dumps([self._upload, self._mark])

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        return self._requests.put_part(self._key, upload_of(state), part.number, data, self._name)

    def complete(self, state: str, parts: Sequence[SentPart]) -> None:
        self._prepare(refused=self._conditions.parts)
        self._requests.complete(
            self._key,
            upload_of(state),
            parts,
            self._name,
            if_absent=self._if_absent and self._conditions.parts,
        )
        self._requests.lock(self._key, self._name)

    def _prepare(self, *, refused: bool) -> None:
        """See that there is a folder, and nothing where the value goes, unless that is refused."""
        self._folders.before_writing(self._name)
        if self._if_absent and not refused:
            found = self._requests.head(self._key, self._name)
            if found is not None and found.mark != self._mark:
                raise ObjectExists(f"{self._name} exists")

    def abandon(self, state: str) -> None:
        self._requests.abandon(self._key, upload_of(state), self._name)

    def landed(self, state: str | None, size: int) -> bool:
        # Without if_absent a repetition replaces what it finds, and whole values bear no mark.
        if state is None and not self._if_absent:
            return False
        found = self._requests.head(self._key, self._name)
        if found is None or found.mark != self._mark or found.size != size:
            return False
        if state is not None:
            self._requests.lock(self._key, self._name)
        return True

    def keep(self, data: bytes | bytearray) -> str:
        name = f"{KEPT}{upload_tag(self._upload)}-{secrets.token_hex(8)}"
        self._requests.put(self._root + name, data, name, plain=True)
        return name

    def kept(self, reference: str) -> bytes:
        with self._requests.get(
            self._kept_key(reference), self._name, wanted=None, etag=None
        ) as reader:
            return b"".join(iter(lambda: reader.read(1 << 20), b""))

    def drop(self, reference: str) -> None:
        self._requests.delete(self._kept_key(reference), self._name, etag=None)

    def _kept_key(self, reference: str) -> str:
        if not reference.startswith(KEPT) or "/" in reference:
            raise ObjectNotFound(f"{self._name}: not a checkpoint's")
        return self._root + reference

    def sent(self, state: str) -> Sequence[SentPart]:
        return [part for part, _ in self._requests.parts(self._key, upload_of(state), self._name)]


def _was_another(found: Found, etag: str, data: bytes | bytearray) -> bool:
    """Whether an object that was replaced had other bytes for sure.

    Args:
        etag: of the data: an MD5 where neither the service's encryption nor parts made it.
    """
    if found.size != len(data):
        return True
    plain = etag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()
    return plain and "-" not in found.etag and found.etag != etag


def upload_of(state: str) -> str:
    """Return the upload's id. Raises ValueError for what `Target.begin` did not return."""
    return _read(state)[0]


def _read(state: str) -> tuple[str, str]:
    match json.loads(state):
        case [str(upload_id), str(mark)]:
            return upload_id, mark
    raise ValueError("not the state of an upload")


def upload_tag(upload_id: str) -> str:
    """Return by what a checkpoint's bytes are known to belong to an upload."""
    return hashlib.sha256(upload_id.encode()).hexdigest()[:32]
