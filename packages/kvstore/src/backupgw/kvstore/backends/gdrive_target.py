"""One value on its way into Google Drive: one request, or an upload in order.

A new file has an id that was had before, so a request whose answer was lost can be made again: it
is refused then, and the file is there. An item that is replaced keeps its id.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..names import KernelPath
from .base import Backend
from .errors import BackendError, ObjectExists, ObjectNotFound
from .gdrive_calls import MOST_AT_ONCE, Taken, Where
from .gdrive_entry import Entry, entry_of
from .gdrive_folders import checked
from .gdrive_items import Items
from .google_target import PIECES, SessionTarget
from .google_uploads import UploadSession
from .part_checkpoints import Checkpoint
from .part_transfers import Part, SentPart
from .plan import Plan

T = TypeVar("T")


class GdriveTarget(SessionTarget):
    """See `ResumableTarget`.

    Args:
        place: keeps what checkpoints need.
        items: of the place.
        plan: what `open_writer` was told.
        part_size: in bytes, a multiple of 256 KiB.
        checkpoint: that is carried on.
    """

    def __init__(
        self,
        place: Backend,
        items: Items,
        plan: Plan,
        part_size: int,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(plan, part_size, checkpoint)
        self._place = place
        self._items = items
        self._calls = items.calls
        self._segment = checked(plan.name.rpartition("/")[2])
        self._new: str | None = None
        """Id of the file that is to be, or may be already."""
        self._replaces = False
        self._entry: Entry | None = None
        """The file that has come to be, and is not the item yet."""
        self._ended = False
        if checkpoint is not None:
            self._mark, self._new, self._replaces, self._part_size = _read(checkpoint.state)

    # -- in one request

    def put_whole(self, data: bytes | bytearray) -> None:
        if self._entry is None:
            self._entry = self._sent(data)
        self._settle()

    def _sent(self, data: bytes | bytearray) -> Entry:
        name, size = self._plan.name, len(data)

        def send(about: Where) -> Entry:
            if size <= MOST_AT_ONCE:
                return self._calls.put(name, data, about)
            session = self._calls.begin(name, size, about)
            return entry_of(session.put(data, 0, last=True), name)

        if not self._plan.if_absent:
            replaced = self._in_place_of_the_old(send)
            if replaced is not None:
                return self._whole(replaced, size)
        self._replaces = False
        if self._plan.if_absent and self._new is None and self._items.known(name) is not None:
            self._items.require_free(name)  # it is likely there, and its bytes need not travel
        return self._whole(self._into_folder(send), size)

    def _in_place_of_the_old(self, send: Callable[[Where], T]) -> T | None:
        """Send into the file of the item that is replaced; None where there is none."""
        for _ in range(2):
            there = self._items.item_to_replace(self._plan.name)
            if there is None:
                return None
            try:
                sent = send(Where(there))
            except ObjectNotFound:
                self._items.note(self._plan.name, None)
                continue
            if not isinstance(sent, Entry) or not sent.trashed:
                self._replaces = True
                return sent
            self._items.note(self._plan.name, None)  # somebody has put it into the trash
        return None

    def _into_folder(self, send: Callable[[Where], T]) -> T:
        """Send into a new file in the item's folder, which is made again if it is gone."""
        name = self._plan.name
        for attempt in range(2):
            folder = self._items.folder_of(name)
            if self._new is None:
                self._new = self._calls.new_id()
            try:
                sent = send(Where(self._new, self._segment, folder))
            except ObjectNotFound:
                self._items.lost_folder(name)
                if attempt:
                    raise
                continue
            except Taken:
                new = self._new
                return self._calls.get(name, new)  # type: ignore[return-value]  # sends of entries
            if not isinstance(sent, Entry) or not sent.trashed:
                return sent
            self._items.lost_folder(name)
            self._withdraw(sent)
        raise BackendError(f"{name}: the folder around it is removed all the time", retryable=True)

    def _whole(self, entry: Entry, size: int) -> Entry:
        if entry.size != size:
            raise BackendError(f"{self._plan.name}: Drive has stored {entry.size} of {size} bytes")
        return entry

    def _withdraw(self, entry: Entry) -> None:
        self._entry = self._new = None
        if not self._replaces:
            self._items.remove(self._plan.name, entry.id, trash=False)

    def _settle(self) -> None:
        """Make the file the item."""
        entry = self._entry
        assert entry is not None
        if self._replaces:
            self._items.note(self._plan.name, entry)
            self._entry = None
            return
        try:
            self._items.settle(self._plan.name, entry, if_absent=self._plan.if_absent)
        except BackendError as error:
            if not error.retryable:  # it has been taken back
                self._entry = self._new = None
                self._ended = True
            raise
        self._entry = None

    # -- in parts

    def begin(self) -> str:
        name, size = self._plan.name, self._plan.size

        def start(about: Where) -> UploadSession:
            return self._calls.begin(name, size, about)

        if not self._plan.if_absent:
            self._session = self._in_place_of_the_old(start)
        if self._session is None:
            self._new = None  # a session shows nothing, so it may have an id of its own
            self._session = self._into_folder(start)
        return json.dumps([self._mark, self._new, self._replaces, self._part_size])

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:  # noqa: ARG002
        name = self._plan.name
        session = self._require_session()
        if not part.last:
            session.put(data, part.offset, last=False)
            return ""
        if self._ended:
            raise BackendError(
                f"{name}: the upload ended when another item was found; it has to be sent anew",
                retryable=True,
            )
        if not self._replaces and self._entry is None:
            self._clear()
        told = session.put(data, part.offset, last=True)
        self._entry = self._whole(entry_of(told, name), part.offset + part.size)
        return ""

    def _clear(self) -> None:
        """See that nothing is where the value becomes visible now."""
        name = self._plan.name
        try:
            self._items.require_free(name, but=self._new)
        except ObjectExists:
            if self._plan.if_absent:
                raise

    def complete(self, state: str, parts: Sequence[SentPart]) -> None:  # noqa: ARG002
        if self._entry is None:
            raise BackendError(f"{self._plan.name}: it has to be sent anew", retryable=True)
        if self._entry.trashed:
            self._withdraw(self._entry)
            self._items.lost_folder(self._plan.name)
            self._ended = True
            raise BackendError(
                f"{self._plan.name}: the folder around it was removed meanwhile", retryable=True
            )
        self._settle()
        self._forget()

    def abandon(self, state: str) -> None:  # noqa: ARG002 - all is known
        if self._entry is not None:
            self._withdraw(self._entry)
        else:
            with contextlib.suppress(ObjectNotFound):
                self._require_session().cancel()
        self._forget()

    # -- checkpoints

    def _put_aside(self, name: str, data: bytes | bytearray) -> None:
        self._place.store(_piece(name), data)

    def _from_aside(self, name: str) -> bytes:
        return self._place.load(_piece(name))

    def _drop_aside(self, name: str) -> None:
        with contextlib.suppress(ObjectNotFound):
            self._place.delete(_piece(name))

    def _carried_on(self, url: str) -> UploadSession:
        return self._calls.session(self._plan.name, url)


def _piece(name: str) -> KernelPath:
    return KernelPath(f"{PIECES}/{name}")


def _read(state: str) -> tuple[str, str | None, bool, int]:
    """Return an upload's mark, the id of the new file, whether it replaces an item instead, and
    the size of its parts."""
    match json.loads(state):
        case [str(mark), str() | None as new, bool(replaces), int(part_size)] if part_size > 0:
            bytes.fromhex(mark)
            return mark, new, replaces, part_size
    raise ValueError("not the state of an upload")
