"""One value on its way into a bucket of Google's: one request, or an upload in order.

An upload whose item is to be new is begun under that condition, and ends under it: so it never
replaces anything. Where there is an item already when it begins, its bytes go into an object out of
sight, and are copied by the service should the item be gone at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ..names import RESERVED_PREFIX
from .errors import BackendError, ObjectExists, ObjectNotFound
from .gcs_checksums import encoded_crc, extended
from .gcs_requests import Requests
from .google_target import PIECES, SessionTarget
from .google_uploads import UploadSession
from .part_checkpoints import Checkpoint
from .part_transfers import Part, SentPart
from .plan import Plan

STAGING = f"{RESERVED_PREFIX}-staging"
"""Folder of the place for values that have no name yet."""


class GcsTarget(SessionTarget):
    """See `ResumableTarget`.

    Args:
        requests: of the bucket.
        root: what every key begins with.
        key: the item's.
        plan: what `open_writer` was told.
        part_size: in bytes, a multiple of 256 KiB.
        ready: raises what stands against the item; called before it becomes visible.
        checkpoint: that is carried on.
    """

    def __init__(
        self,
        requests: Requests,
        root: str,
        key: str,
        plan: Plan,
        part_size: int,
        ready: Callable[[], None],
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(plan, part_size, checkpoint)
        self._requests = requests
        self._root = root
        self._key = key
        self._ready = ready
        self._crc = 0
        """Of what was sent."""
        self._summed = 0
        """Bytes that it covers."""
        self._staged: str | None = None
        self._ended = False
        if checkpoint is not None:
            self._mark, aside, self._part_size = _read(checkpoint.state)
            for part in checkpoint.parts:
                self._crc, self._summed = int(part.tag), self._summed + part.size
            self._staged = self._aside if aside else None

    @property
    def _aside(self) -> str:
        return f"{self._root}{STAGING}/{self._mark}"

    def put_whole(self, data: bytes | bytearray) -> None:
        self._ready()
        mark = self._mark if self._plan.if_absent else None
        self._requests.put(
            self._key, data, self._plan.name, if_absent=self._plan.if_absent, mark=mark
        )

    def begin(self) -> str:
        name, size = self._plan.name, self._plan.size
        if self._plan.if_absent and self._staged is None:
            try:
                self._session = self._requests.begin(
                    self._key, name, size, if_absent=True, mark=self._mark
                )
            except ObjectExists:
                self._staged = self._aside
        if self._session is None:
            key = self._staged or self._key
            self._session = self._requests.begin(key, name, size, if_absent=False, mark=self._mark)
        return json.dumps([self._mark, self._staged is not None, self._part_size])

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:  # noqa: ARG002
        session = self._require_session()
        end = part.offset + part.size
        if self._summed < end:
            self._crc, self._summed = extended(self._crc, data), end
        if not part.last:
            session.put(data, part.offset, last=False)
            return str(self._crc)
        if self._ended:
            raise BackendError(
                f"{self._plan.name}: the upload ended when another item was found; it has to be "
                "sent anew",
                retryable=True,
            )
        if self._staged is None:
            self._ready()
        crc = encoded_crc(self._crc)
        try:
            told = session.put(
                data, part.offset, last=True, headers={"X-Goog-Hash": f"crc32c={crc}"}
            )
        except ObjectExists:
            self._ended = True
            raise
        if told.get("crc32c", crc) != crc or int(told.get("size", end)) != end:
            self._remove(self._staged or self._key, int(told.get("generation", 0)))
            raise BackendError(f"{self._plan.name}: it was damaged on the way")
        return str(self._crc)

    def _remove(self, key: str, generation: int) -> None:
        try:
            self._requests.delete(key, self._plan.name, generation=generation or None)
        except (ObjectNotFound, ObjectExists):
            return

    def complete(self, state: str, parts: Sequence[SentPart]) -> None:  # noqa: ARG002
        """Copy what waits out of sight; what does not has been visible since its last byte came."""
        if self._staged is not None:
            self._ready()
            name = self._plan.name
            waiting = self._requests.head(self._staged, name)
            if waiting is None:
                raise ObjectNotFound(name)
            self._requests.copy(waiting, self._key, name, if_absent=self._plan.if_absent)
            self._remove(self._staged, waiting.generation)
        self._forget()

    def abandon(self, state: str) -> None:  # noqa: ARG002 - all is known
        try:
            session = self._require_session()
        except ObjectNotFound:
            session = None
        if session is not None:
            session.cancel()
        if self._staged is not None:
            self._remove(self._staged, 0)
        self._forget()

    def landed(self, state: str | None, size: int) -> bool:
        # Without if_absent a repetition replaces what it finds.
        if state is None and not self._plan.if_absent:
            return False
        found = self._requests.head(self._key, self._plan.name)
        return found is not None and found.mark == self._mark and found.size == size

    # -- checkpoints

    def _put_aside(self, name: str, data: bytes | bytearray) -> None:
        self._requests.put(self._piece(name), data, self._plan.name)

    def _from_aside(self, name: str) -> bytes:
        item = self._plan.name
        with self._requests.translator.translated(item):
            download = self._requests.get(self._piece(name), item, wanted=None, generation=None)
            with download.response as response:
                content: bytes = response.content
        return content

    def _drop_aside(self, name: str) -> None:
        self._remove(self._piece(name), 0)

    def _carried_on(self, url: str) -> UploadSession:
        return self._requests.session(url, self._plan.name)

    def _piece(self, name: str) -> str:
        return f"{self._root}{PIECES}/{name}"


def _read(state: str) -> tuple[str, bool, int]:
    """Return an upload's mark, whether it goes out of sight, and the size of its parts."""
    match json.loads(state):
        case [str(mark), bool(aside), int(part_size)] if part_size > 0:
            bytes.fromhex(mark)
            return mark, aside, part_size
    raise ValueError("not the state of an upload")
