"""Which place of a mirror is asked, and what happens when it cannot answer.

Asked is a place that holds the name as it should: it is up, it was filled, and the journal does
not say that it missed the name. Where the first such place fails, or lacks what another one has,
the next answers; what a place turns out to lack is journaled, so that it is put right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..backends.base import Backend, ItemInfo, Reader
from ..backends.errors import (
    BackendConnectionError,
    BackendError,
    ObjectNotFound,
    ReadRangeError,
    UnsupportedOperation,
)
from .mirror_journal import Journal
from .mirror_places import Place, PlaceTimeout, State, is_trouble

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Reads:
    """Asking the places of a mirror, the preferred one first."""

    def __init__(self, places: Sequence[Place], journal: Journal, wake: Callable[[], None]) -> None:
        self.places = places
        self.journal = journal
        self._wake = wake

    def candidates(self, name: str) -> list[Place]:
        """Return the places that hold `name` as it should be, healthy ones first."""
        missed = self.journal.missed_by(name)
        return sorted(
            (p for p in self.places if p.usable and p.trusted and p.label not in missed),
            key=lambda place: place.state is State.SUSPECT,
        )

    def first(self, name: str, work: Callable[[Backend], T]) -> tuple[Place, T]:
        """Return the first answer, and whose it is. Raises ObjectNotFound only if all say so."""
        return self.first_of(self.candidates(name), name, work)

    def first_of(
        self, candidates: Sequence[Place], name: str, work: Callable[[Backend], T]
    ) -> tuple[Place, T]:
        """As `first`, among these places."""
        lacking: list[Place] = []
        not_found: ObjectNotFound | None = None
        failure: BackendError | None = None
        for place in candidates:
            try:
                result = place.call(work)
            except ObjectNotFound as error:
                not_found = not_found or error
                lacking.append(place)
            except UnsupportedOperation:
                raise
            except BackendError as error:
                logger.info("%s: %s failed, the next place is asked: %s", name, place, error)
                failure = failure or error
            else:
                for other in lacking:
                    self.found_missing(other, name)
                return place, result
        if not_found is not None:
            raise not_found
        raise failure or self.nowhere(name)

    def nowhere(self, name: str) -> BackendError:
        """Return the error for a name that no place holds as it should."""
        return BackendConnectionError(
            f"{name}: no place that holds it as it should is up", retryable=True
        )

    def found_missing(self, place: Place, name: str) -> None:
        """Have a place put right that lacks, or has damaged, what another one has."""
        logger.warning("%s: %s lacks it or has it damaged; it will be put right", name, place)
        try:
            self.journal.miss(place.label, [name])
        except BackendError as error:
            logger.warning("%s", error)
        self._wake()

    def info(self, name: str) -> ItemInfo:
        """Tell about an item or folder."""
        candidates = self.candidates(name)
        answer: ItemInfo | None = None
        failure: BackendError | None = None
        lacking: list[Place] = []
        for place in candidates:
            try:
                info = place.call(lambda backend: backend.info(name))
            except BackendError as error:
                failure = failure or error
                continue
            if info.exists:
                if not info.directory:
                    for other in lacking:
                        self.found_missing(other, name)
                return info
            lacking.append(place)
            answer = answer or info
        if answer is not None:
            return answer
        if folder := self._folder(name):
            return folder
        raise failure or self.nowhere(name)

    def _folder(self, name: str) -> ItemInfo | None:
        """Ask places that may lack a folder, or something in it, whether they have it."""
        for place in self.places:
            if place.usable and place.trusted:
                try:
                    info = place.call(lambda backend: backend.info(name))
                except BackendError:
                    continue  # the caller tells what is wrong with the others
                if info.exists and info.directory:
                    return info
        return None

    def open_reader(self, name: str, offset: int, size: int | None) -> MirrorReader:
        """Start reading an item. Raises ObjectNotFound, BackendError."""
        candidates = self.candidates(name)
        place, reader = self.first_of(
            candidates, name, lambda backend: backend.open_reader(name, offset=offset, size=size)
        )
        rest = candidates[candidates.index(place) + 1 :]
        start = max(0, reader.item_size + offset) if offset < 0 else offset
        return MirrorReader(self, name, place, reader, rest, start)


class MirrorReader(Reader):
    """Reads from one place, and goes on at the next where that fails."""

    def __init__(
        self,
        reads: Reads,
        name: str,
        place: Place,
        reader: Reader,
        rest: Sequence[Place],
        position: int,
    ) -> None:
        self.item_size = reader.item_size
        self.remaining = reader.remaining
        self._reads = reads
        self._name = name
        self._place = place
        self._reader: Reader | None = reader
        self._rest = list(rest)
        self._position = position

    def read(self, size: int) -> bytes:
        if self._reader is None:
            raise BackendError(f"{self._name}: the reader is closed")
        if self.remaining <= 0 or size <= 0:
            return b""
        while True:
            try:
                data = self._read(self._reader, min(size, self.remaining))
            except BackendError as error:
                self._next(error)
            else:
                self._position += len(data)
                self.remaining -= len(data)
                return data

    def _read(self, reader: Reader, size: int) -> bytes:
        future = self._place.start(lambda _: reader.read(size))
        try:
            data = self._place.wait(future)
        except PlaceTimeout:
            future.add_done_callback(lambda _: reader.close())
            raise
        if not data:
            raise ReadRangeError(f"{self._name}: ended {self.remaining} bytes too early")
        return data

    def _next(self, error: BackendError) -> None:
        """Go on at the next place that has an item of the same size; else raise `error`."""
        failed, reader = self._place, self._reader
        if reader is not None and not isinstance(error, PlaceTimeout):
            reader.close()
        self._reader = None
        while self._rest:
            place = self._rest.pop(0)
            try:
                reader = place.call(
                    lambda backend: backend.open_reader(
                        self._name, offset=self._position, size=self.remaining
                    )
                )
            except BackendError as other:
                logger.info("%s: %s: %s", self._name, place, other)
                continue
            if reader.item_size != self.item_size or reader.remaining != self.remaining:
                reader.close()
                continue
            logger.warning("%s: goes on at %s after %s: %s", self._name, place, failed, error)
            if not is_trouble(error) and not isinstance(error, ObjectNotFound):
                self._reads.found_missing(failed, self._name)
            self._place, self._reader = place, reader
            return
        raise error

    def close(self) -> None:
        reader, self._reader = self._reader, None
        self.remaining = 0 if reader is None else self.remaining
        if reader is not None:
            reader.close()
