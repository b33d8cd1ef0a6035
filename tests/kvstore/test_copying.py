"""Copying from place to place: all of it, once, whole, and again after an interruption."""

from __future__ import annotations

import hashlib
import random
import threading
import tracemalloc
from collections.abc import Iterator

import pytest
from tests.kvstore.flaky_place import FlakyPlace

from backupgw.kvstore.backends.base import Backend, ItemInfo, Reader, Writer
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.copying import Compare, Copied, Copy, Outcome, Side, Totals
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.retry_schedule import Schedule
from backupgw.kvstore.registry import open_place
from backupgw.kvstore.walking import walk

QUICK = Schedule(attempts=5, first=0.0, longest=0.0)


@pytest.fixture
def source() -> Iterator[Memory]:
    with _memory() as place:
        yield place


@pytest.fixture
def target() -> Iterator[Memory]:
    with _memory() as place:
        yield place


def _memory() -> Memory:
    place = Memory()
    place.create()
    return place


def fill(place: Backend, count: int = 30) -> dict[str, bytes]:
    rng = random.Random(count)
    values = {f"d{n % 4}/e/{n:03}": rng.randbytes(rng.randrange(5000)) for n in range(count)}
    for name, value in values.items():
        place.store(name, value)
    return values


def tree(place: Backend, folder: str = "") -> dict[str, bytes]:
    return {f.path: place.load(f.path) for f in walk(place, folder) if not f.info.directory}


def copied(source: Backend, target: Backend, **options: object) -> Totals:
    options.setdefault("schedule", QUICK)
    return Copy(Side(source), Side(target), **options).run()  # type: ignore[arg-type]


def test_all_is_there_afterwards_empty_folders_too(source: Memory, target: Memory) -> None:
    values = fill(source)
    source.mkdir("empty/inner")
    totals = copied(source, target)
    assert tree(target) == values
    assert target.info("empty/inner").directory
    assert (totals.copied, totals.present, totals.failed) == (len(values), 0, 0)
    assert totals.copied_bytes == sum(map(len, values.values()))


def test_a_folder_goes_into_a_folder_and_an_item_to_a_name(source: Memory, target: Memory) -> None:
    values = fill(source)
    Copy(Side(source, "d1"), Side(target, "x/y")).run()
    assert tree(target) == {
        f"x/y{name[2:]}": value for name, value in values.items() if name.startswith("d1/")
    }
    Copy(Side(source, "d2/e/002"), Side(target, "one")).run()
    assert target.load("one") == values["d2/e/002"]
    with pytest.raises(ObjectNotFound):
        Copy(Side(source, "none"), Side(target)).run()


def test_a_second_copy_moves_only_what_is_new_or_changed(source: Memory, target: Memory) -> None:
    values = fill(source)
    copied(source, target)
    source.store("d0/e/000", bytes(len(values["d0/e/000"])))  # same size, later
    source.store("new", b"new")
    target.delete("d1/e/001")
    totals = copied(source, target)
    assert tree(target) == tree(source)
    assert totals.copied == 3
    assert totals.present == len(values) - 2


def test_an_item_named_by_its_hash_needs_no_look_at_the_time(
    source: Memory, target: Memory
) -> None:
    name = f"data/{hashlib.sha256(b'pack').hexdigest()}"
    target.store(name, b"pack")
    source.store(name, b"pack")  # later
    assert copied(source, target).present == 1


def test_comparing_by_size_and_by_hash(source: Memory, target: Memory) -> None:
    source.store("same", b"same")
    target.store("same", b"same")
    source.store("same", b"same")
    target.store("other", b"1111")
    source.store("other", b"2222")
    assert copied(source, target, compare=Compare.SIZE).present == 2
    totals = copied(source, target, compare=Compare.HASH)
    assert (totals.present, totals.copied) == (1, 1)
    assert target.load("other") == b"2222"


def test_verify_finds_what_is_wrong_at_the_target_already(source: Memory, target: Memory) -> None:
    source.store("data", b"right")
    target.store("data", b"wrong")  # younger, and of the same size
    assert copied(source, target).copied == 0
    assert copied(source, target, verify=True).copied == 1
    assert target.load("data") == b"right"


class Garbling(Layer):
    """Stores other bytes than it was given, where the name says so."""

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        writer = self.inner.open_writer(name, size=size)
        return _Flipping(writer) if "bad" in name else writer


class _Flipping(Writer):
    def __init__(self, inner: Writer) -> None:
        self._inner = inner

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._inner.write(bytes(byte ^ 1 for byte in data))

    def commit(self) -> None:
        self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()


def test_verify_takes_a_garbled_copy_out_of_the_way(source: Memory, target: Memory) -> None:
    source.store("bad", b"value")
    source.store("good", b"value")
    told: list[Copied] = []
    totals = copied(source, Garbling(target), verify=True, on_item=told.append)
    assert (totals.copied, totals.failed) == (1, 1)
    assert tree(target) == {"good": b"value"}
    [failed] = [item for item in told if item.outcome is Outcome.FAILED]
    assert failed.name == "bad"
    assert "not what was written" in failed.message


def test_a_dry_run_changes_nothing_and_tells_what_it_would(source: Memory, target: Memory) -> None:
    values = fill(source)
    source.mkdir("empty")
    told: list[Copied] = []
    totals = copied(source, target, dry_run=True, on_item=told.append)
    assert totals.copied == len(values) == len(told)
    assert list(target.list("")) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_flaky_network_loses_and_doubles_nothing(
    source: Memory, target: Memory, seed: int
) -> None:
    values = fill(source, 60)
    near = FlakyPlace(source, share=0.03, seed=seed, sleep=lambda _: None)
    far = FlakyPlace(target, share=0.03, seed=seed + 100, sleep=lambda _: None)
    for _ in range(50):
        try:
            totals = Copy(Side(near), Side(far), verify=True, schedule=QUICK).run()
        except BackendError as error:
            if not error.retryable:
                raise
            continue
        if not totals.failed and not totals.gave_up:
            break
    assert near.faults
    assert far.faults
    assert tree(target) == values
    assert totals.failed == 0


class Refusing(Layer):
    """Refuses to write what is refused."""

    def __init__(self, inner: Backend, refused: set[str], error: BackendError) -> None:
        super().__init__(inner)
        self._refused = refused
        self._error = error
        self.calls = 0

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        self.calls += 1
        if not self._refused or name in self._refused:
            raise self._error
        return self.inner.open_writer(name, size=size)


def test_one_item_that_fails_does_not_keep_the_others(source: Memory, target: Memory) -> None:
    values = fill(source)
    refused = Refusing(target, {"d1/e/001"}, PermissionDenied("not this one"))
    totals = copied(source, refused)
    assert (totals.copied, totals.failed, totals.gave_up) == (len(values) - 1, 1, "")
    del values["d1/e/001"]
    assert tree(target) == values


def test_a_place_that_is_down_is_given_up(source: Memory, target: Memory) -> None:
    fill(source, 200)
    down = Refusing(target, set(), BackendConnectionError("down"))
    totals = copied(source, down, workers=4)
    assert "in a row failed, the last: down" in totals.gave_up
    assert down.calls < 200 * QUICK.attempts


def test_a_place_that_takes_long_to_fail_is_given_up_after_a_minute(
    source: Memory, target: Memory
) -> None:
    fill(source, 200)
    now = 0.0

    class Slow(Layer):
        def open_writer(self, name: str, **_: object) -> Writer:
            nonlocal now
            now += 15.0
            raise BackendConnectionError("no route")

    schedule = Schedule(attempts=5, first=0.0, longest=0.0, clock=lambda: now)
    totals = copied(source, Slow(target), workers=1, schedule=schedule)
    assert totals.gave_up == ("nothing went for 75 s: no route")
    assert totals.failed == 1


def test_a_full_place_is_given_up(source: Memory, target: Memory) -> None:
    values = fill(source)
    full = Refusing(target, {"d2/e/002"}, StorageFull("no space left"))
    totals = copied(source, full, workers=1)
    assert totals.gave_up == "the target has no room: no space left"
    assert totals.copied + totals.failed < len(values)


def test_what_vanished_meanwhile_is_no_failure(source: Memory, target: Memory) -> None:
    class Vanishing(Layer):
        def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
            if name == "lock":
                raise ObjectNotFound(name)
            return self.inner.open_reader(name, offset=offset, size=size)

    source.store("lock", b"x")
    source.store("data", b"x")
    totals = copied(Vanishing(source), target)
    assert (totals.copied, totals.gone, totals.failed) == (1, 1, 0)


def test_a_folder_is_not_copied_into_itself(source: Memory) -> None:
    fill(source)
    for pair in (("d1", "d1/x"), ("d1/e", "d1"), ("d1", "d1"), ("", "d1"), ("d1", "")):
        with pytest.raises(BackendError, match="one lies in the other"):
            Copy(Side(source, pair[0]), Side(source, pair[1])).run()
    Copy(Side(source, "d1"), Side(source, "d10")).run()
    assert len(tree(source, "d10")) == len(tree(source, "d1"))


def test_an_item_where_a_folder_is_fails_alone(source: Memory, target: Memory) -> None:
    source.store("a", b"x")
    source.store("b", b"x")
    target.mkdir("a")
    totals = copied(source, target)
    assert (totals.copied, totals.failed) == (1, 1)


class Endless(Layer):
    """Has one item that never ends to be read; tells when it is being read."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.reading = threading.Event()

    def info(self, name: str) -> ItemInfo:
        return self.inner.info(name)

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        return _EndlessReader(self.reading)


class _EndlessReader(Reader):
    item_size = 1 << 50
    remaining = 1 << 50

    def __init__(self, reading: threading.Event) -> None:
        self._reading = reading

    def read(self, size: int) -> bytes:
        self._reading.set()
        return b"x"

    def close(self) -> None:
        return


class Ended(Layer):
    """Notes how each writer ended."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.ends: list[str] = []

    def open_writer(
        self,
        name: str,
        *,
        size: int | None = None,
        if_absent: bool = False,
        expected_hash: str | None = None,
    ) -> Writer:
        return _EndedWriter(self.inner.open_writer(name, size=size), self.ends)


class _EndedWriter(Writer):
    def __init__(self, inner: Writer, ends: list[str]) -> None:
        self._inner = inner
        self._ends = ends

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._inner.write(data)

    def commit(self) -> None:
        self._inner.commit()
        self._ends.append("commit")

    def abort(self) -> None:
        self._inner.abort()
        self._ends.append("abort")


def test_stopping_leaves_nothing_half_done(source: Memory, target: Memory) -> None:
    source.store("endless", b"x")
    endless, ended = Endless(source), Ended(target)
    copy = Copy(Side(endless), Side(ended))
    running = threading.Thread(target=copy.run)
    running.start()
    assert endless.reading.wait(30)
    copy.stop()
    running.join(30)
    assert not running.is_alive()
    assert list(target.list("")) == []
    assert ended.ends == ["abort"]
    assert copy.totals == Totals()
    assert copy.moved == 0


def test_stopping_ends_a_comparison(source: Memory, target: Memory) -> None:
    source.store("endless", b"x")
    target.store("endless", b"x")
    endless = Endless(source)
    copy = Copy(Side(endless), Side(target), compare=Compare.HASH)
    running = threading.Thread(target=copy.run, daemon=True)
    running.start()
    assert endless.reading.wait(30)
    copy.stop()
    running.join(30)
    assert not running.is_alive()
    assert copy.totals == Totals()


def test_a_defect_ends_the_copy_and_is_told(source: Memory, target: Memory) -> None:
    def broken(_: Copied) -> None:
        raise BrokenPipeError

    fill(source, 100)
    with pytest.raises(BrokenPipeError):
        copied(source, target, on_item=broken)


def test_items_are_copied_at_the_same_time(source: Memory, target: Memory) -> None:
    together = threading.Barrier(4, timeout=30)

    class Meeting(Layer):
        def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
            together.wait()
            return self.inner.open_reader(name, offset=offset, size=size)

    for number in range(4):
        source.store(f"{number}", b"x")
    assert copied(Meeting(source), target, workers=4).copied == 4


def test_large_items_move_in_bounded_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("large")
    one, other = (open_place(f"file://{folder}/{name}") for name in ("one", "other"))
    one.create()
    other.create()
    with one, other:
        with one.open_writer("large") as writer:
            for _ in range(32):
                writer.write(bytes(1 << 20))
        tracemalloc.start()
        try:
            totals = copied(one, other, verify=True)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert totals.copied_bytes == 32 << 20
    assert peak < 8 << 20
