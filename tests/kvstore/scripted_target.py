"""A place in memory that takes values in parts, and fails where a script says so."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backupgw.kvstore.backends.errors import ObjectExists, ObjectNotFound
from backupgw.kvstore.backends.part_transfers import Part, PartTarget, ResumableTarget, SentPart


@dataclass
class Place:
    """What the place holds. `script` gives what each call of a method does first, in order:
    an exception to raise, a function to call, or None."""

    items: dict[str, bytes] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    script: dict[str, list[Exception | Callable[[], object] | None]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def called(self, method: str) -> None:
        with self.lock:
            self.calls.append(method)
            step = self.script[method].pop(0) if self.script[method] else None
        if isinstance(step, Exception):
            raise step
        if step is not None:
            step()


class PlainTarget(PartTarget):
    """One value for the place; parts have 1,000 bytes."""

    def __init__(
        self,
        place: Place,
        name: str = "item",
        *,
        if_absent: bool = False,
        parallel: int = 2,
        size: int = 1000,
    ) -> None:
        self.place = place
        self.name = name
        self.if_absent = if_absent
        self.parallel = parallel
        self.size = size

    def part_size(self, number: int) -> int:
        return self.size

    def put_whole(self, data: bytes | bytearray) -> None:
        self.place.called("put_whole")
        self._show(bytes(data))
        self.place.called("put_whole answered")

    def _show(self, value: bytes) -> None:
        with self.place.lock:
            if self.if_absent and self.name in self.place.items:
                raise ObjectExists(self.name)
            self.place.items[self.name] = value
            self.place.marks[self.name] = id(self)

    def begin(self) -> str:
        self.place.called("begin")
        with self.place.lock:
            state = f"upload-{len(self.place.calls)}"
            self.place.uploads[state] = {}
        return state

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        with self.place.lock:
            self.place.at_once += 1
            self.place.most_at_once = max(self.place.most_at_once, self.place.at_once)
        try:
            self.place.called(f"put_part {part.number}")
            assert len(data) == part.size
            with self.place.lock:
                self.place.uploads[state][part.number] = bytes(data)
            return f"tag-{part.number}-{part.offset}-{part.last}"
        finally:
            with self.place.lock:
                self.place.at_once -= 1

    def complete(self, state: str, parts: Sequence[SentPart]) -> None:
        self.place.called("complete")
        if state not in self.place.uploads:
            raise ObjectNotFound(state)
        there = self.place.uploads[state]
        self._show(b"".join(there[part.number] for part in parts))
        del self.place.uploads[state]
        self.place.called("complete answered")

    def abandon(self, state: str) -> None:
        self.place.called("abandon")
        self.place.uploads.pop(state, None)

    def landed(self, state: str | None, size: int) -> bool:
        return self.place.marks.get(self.name) == id(self)


class Target(PlainTarget, ResumableTarget):
    """The same for a place that keeps checkpoints."""

    def keep(self, data: bytes | bytearray) -> str:
        self.place.called("keep")
        reference = f"kept-{len(self.place.calls)}"
        self.place.kept[reference] = bytes(data)
        return reference

    def kept(self, reference: str) -> bytes:
        if reference not in self.place.kept:
            raise ObjectNotFound(reference)
        return self.place.kept[reference]

    def drop(self, reference: str) -> None:
        self.place.kept.pop(reference, None)

    def sent(self, state: str) -> Sequence[SentPart]:
        if state not in self.place.uploads:
            raise ObjectNotFound(state)
        offset, parts = 0, []
        for number, data in sorted(self.place.uploads[state].items()):
            parts.append(SentPart(number, len(data), f"tag-{number}-{offset}-False"))
            offset += len(data)
        return parts
