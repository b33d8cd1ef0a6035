"""How a value gets into Drime: by one request up to 5 MB, in parts above."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from . import drime_errors, drime_names
from .drime_calls import Calls, stored_as
from .drime_entry import Entry
from .drime_errors import Refused, TooMany
from .drime_items import Items
from .drime_looks import Look
from .errors import BackendConnectionError, BackendError, ObjectExists, ObjectNotFound
from .part_transfers import Part, PartTarget, SentPart
from .plan import Plan

T = TypeVar("T")

SIMPLE = 5_000_000
"""Bytes up to which Drime takes a value in one request."""

PART = 5 << 20
"""Bytes of a part, which the storage takes no less of (S3's limit)."""

_PIECE = 256 << 10
_MOST_PARTS = 10_000
_SIGNED_AT_ONCE = 10
_PACK_AT_ONCE = 3
"""Parts of a repository's object that are under way at a time: with its last one, which goes out
beside them, all of a pack of 16 MiB."""

_GROWS_AFTER = 1000
"""Parts of a value of unknown size after which they become larger: 10,000 hold 268 GiB."""


class DrimeTarget(PartTarget):
    """One value on its way.

    Args:
        items: of the place.
        plan: what `open_writer` was told.
        part: bytes of the first part.
    """

    begins_early = True

    def __init__(self, items: Items, plan: Plan, part: int = PART) -> None:
        self._part = part
        self._items = items
        self._calls: Calls = items.calls
        self._plan = plan
        self._segment = drime_names.written(plan.name.rpartition("/")[2])
        self._signed: dict[int, str] = {}
        self._signing = threading.Lock()
        self._mark: int | None = None
        """Entries with a higher id did not exist when this value was first sent."""
        self._in_doubt = False
        """Whether an entry may have come to be without an answer."""
        self._by_content = plan.if_absent and plan.expected_hash == self._segment
        """Whether the value is known by its hash. Then two entries of the name that were made at
        the same moment, by gateways that did not see each other, are the same value, whichever of
        them counts: so it may be looked for older ones while it is sent."""
        if self._by_content:
            self.parallel = _PACK_AT_ONCE
        self._seen: Look | None = None
        """What there was of the name when the value was on its way."""
        self._entry: Entry | None = None
        """The entry that has come to be, and may not be the item yet."""
        self._parked = False
        """Whether that is out of sight."""
        self._joined = False
        self._join_in_doubt = False
        self._single: tuple[str, SentPart] | None = None

    def part_size(self, number: int) -> int:
        if self._plan.size is not None:
            steps = math.ceil(self._plan.size / _MOST_PARTS / self._part)
            return self._part * max(1, steps)
        return self._part * (1 + (number - 1) // _GROWS_AFTER)

    # -- in one request

    def put_whole(self, data: bytes | bytearray) -> None:
        with self._items.writing(self._plan.name), self._looking():
            self._put_whole(data)

    def _put_whole(self, data: bytes | bytearray) -> None:
        name = self._plan.name
        if len(data) > SIMPLE:
            self._put_single_part(data)
            return
        if self._entry is None:
            self._entry = self._landed(len(data), lambda each: self._same_content(each, data))
        if self._entry is None:
            self._look_early()
            self._entry = self._made(
                len(data), lambda folder: self._calls.upload(name, self._segment, folder, data)
            )
        try:
            self._settle()
        except ObjectExists:
            self._withdraw()
            raise

    def _put_single_part(self, data: bytes | bytearray) -> None:
        """Send what is one part by its size, and too much for one request."""
        if self._single is None:
            state, part = self.begin(), Part(1, 0, len(data), last=True)
            try:
                self._single = state, SentPart(1, len(data), self.put_part(state, part, data))
            except BackendError:
                self.abandon(state)
                raise
        state, sent = self._single
        self._complete(state, [sent])

    def _same_content(self, entry: Entry, data: bytes | bytearray) -> bool:
        digest = hashlib.sha256()
        answer = self._calls.download(self._plan.name, entry, 0, None).answer
        try:
            while piece := answer.read(_PIECE):
                digest.update(piece)
        except BackendConnectionError as error:
            raise drime_errors.of_transport(error, self._plan.name) from error
        finally:
            answer.release()
        return digest.digest() == hashlib.sha256(data).digest()

    # -- in parts

    def begin(self) -> str:
        name = self._plan.name
        self._signed.clear()
        upload, key = self._into_folder(
            lambda folder: self._calls.begin_parts(
                name, self._segment, folder, self._plan.size or 0
            )
        )
        state = json.dumps([upload, key])
        with contextlib.suppress(BackendError):  # whoever sends a part asks again
            self._url(state, 1)
        return state

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        url = self._url(state, part.number)
        try:
            return self._calls.send_part(self._plan.name, url, data)
        except ObjectNotFound as error:
            raise BackendError(
                f"{self._plan.name}: the storage has forgotten the upload", retryable=False
            ) from error
        except BackendError:
            with self._signing:
                self._signed.pop(part.number, None)  # it may have run out
            raise

    def _url(self, state: str, number: int) -> str:
        with self._signing:
            if number not in self._signed:
                last = number + _SIGNED_AT_ONCE - 1
                if self._plan.size is not None:
                    parts = max(1, math.ceil(self._plan.size / self.part_size(number)))
                    last = min(last, max(parts, number))
                upload, key = json.loads(state)
                wanted = range(number, last + 1)
                self._signed |= self._calls.sign(self._plan.name, upload, key, wanted)
            return self._signed[number]

    def complete(self, state: str, parts: Sequence[SentPart]) -> None:
        with self._items.writing(self._plan.name), self._looking():
            self._complete(state, parts)

    def _complete(self, state: str, parts: Sequence[SentPart]) -> None:
        name = self._plan.name
        self._look_early()
        upload, key = json.loads(state)
        size = sum(part.size for part in parts)
        if not self._joined:
            self._join(upload, key, [part.tag for part in parts])
        if self._entry is None:
            self._entry = self._landed(size, lambda each: each.stored_as == stored_as(key))
        if self._entry is None:
            self._entry = self._made(
                size,
                lambda folder: self._calls.register(name, self._segment, folder, size, key),
            )
        if self._parked:
            if self._items.entries(name):
                raise ObjectExists(f"{name} exists")
            self._items.bring_back(name, self._entry)
            self._parked = False
        try:
            self._settle()
        except ObjectExists:
            # Its bytes would be lost with the entry, and commit may be called again.
            self._items.set_aside(name, self._entry)
            self._parked = True
            raise

    def _join(self, upload: str, key: str, tags: Sequence[str]) -> None:
        try:
            self._calls.complete(self._plan.name, upload, key, tags)
        except (ObjectNotFound, Refused):
            if not self._join_in_doubt:
                raise
        except BackendError:
            self._join_in_doubt = True
            raise
        self._joined = True

    def abandon(self, state: str) -> None:
        if self._entry is not None:
            self._withdraw()
        elif not self._joined:
            upload, key = json.loads(state)
            self._calls.abort(self._plan.name, upload, key)

    # -- the entry

    def _made(self, size: int, make: Callable[[int], Entry]) -> Entry:
        """Return the entry that `make` makes in the item's folder."""
        if self._mark is None:
            self._mark = self._calls.newest
        try:
            entry = self._into_folder(make)
        except BackendError as error:
            self._in_doubt |= error.retryable and not isinstance(error, TooMany)
            raise
        if entry.name != self._segment:
            self._items.remove(self._plan.name, [entry.id])
            raise BackendError(f"{self._plan.name}: Drime would call it {entry.name!r}")
        if not entry.whole or entry.size != size:
            self._items.remove(self._plan.name, [entry.id])
            raise BackendError(
                f"{self._plan.name}: Drime has stored {entry.size} of {size} bytes"
                if entry.whole
                else f"{self._plan.name}: Drime has not finished the upload",
                retryable=True,
            )
        self._in_doubt = False
        return entry

    def _landed(self, size: int, mine: Callable[[Entry], bool]) -> Entry | None:
        """Return the entry that came to be without an answer, None where there is none."""
        if not self._in_doubt or self._mark is None:
            return None
        for entry in self._items.entries(self._plan.name):
            fits = entry.id > self._mark and not entry.folder and entry.size == size
            if fits and entry.whole and mine(entry):
                return entry
        return None

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        """Leave no look behind that was begun within."""
        try:
            yield
        finally:
            look, self._seen = self._seen, None
            if look is not None:
                look.drop()

    def _look_early(self) -> None:
        """Begin to look for older entries, where it may be done beside sending the value."""
        if self._by_content and self._entry is None and not self._in_doubt:
            self._seen = self._items.look(self._plan.name)

    def _settle(self) -> None:
        """Make the entry the item. Where that is refused for good but for ObjectExists, the entry
        is removed."""
        assert self._entry is not None
        name, look = self._plan.name, self._seen
        there: list[Entry] | None = None
        try:
            if look is not None and self._entry.parent in look.parents:
                there = look.found()
            if not self._items.alone(name):
                there = None
            self._items.settle(name, self._entry, if_absent=self._plan.if_absent, seen=there)
        except ObjectExists:
            raise
        except BackendError as error:
            if not error.retryable:
                self._withdraw()
            raise

    def _withdraw(self) -> None:
        entry, self._entry, self._parked = self._entry, None, False
        if entry is not None:
            self._items.remove(self._plan.name, [entry.id])

    def _into_folder(self, call: Callable[[int], T]) -> T:
        """Return what `call` returns for the id of the item's folder, made again if it is gone."""
        name = self._plan.name
        folder = self._items.folder_of(name)
        try:
            return call(folder)
        except (Refused, ObjectNotFound):
            self._items.lost_folder(name)
            again = self._items.folder_of(name)
            if again == folder:
                raise
            return call(again)
