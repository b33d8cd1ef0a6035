"""Failures that pass are not noticed; those that do not are told; nothing is lost or doubled."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kvstore.flaky_place import FlakyPlace

from backupgw.kvstore.backends.base import Backend, ItemInfo, Reader
from backupgw.kvstore.backends.errors import (
    BackendConnectionError,
    BackendError,
    ObjectNotFound,
    PermissionDenied,
)
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.retry import RetryLayer
from backupgw.kvstore.layers.retry_reader import ReplacedMeanwhile
from backupgw.kvstore.layers.retry_schedule import Schedule
from backupgw.kvstore.layers.stack import LayerInvalid
from backupgw.kvstore.registry import open_place


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def schedule(self, attempts: int = 5, deadline: float = 120.0) -> Schedule:
        return Schedule(
            attempts=attempts,
            deadline=deadline,
            first=1.0,
            longest=10.0,
            clock=self.clock,
            sleep=self.sleep,
            uniform=lambda _, most: most,
        )


class Scripted(Layer):
    """Raises what a test put into `errors`, one a call; `after` lets the call take effect first."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.errors: list[BackendError] = []
        self.after = False
        self.calls = 0

    def _strike(self, *, took_effect: bool) -> None:
        if self.errors and self.after is took_effect:
            raise self.errors.pop(0)

    def info(self, name: str) -> ItemInfo:
        self.calls += 1
        self._strike(took_effect=False)
        return super().info(name)

    def delete(self, name: str) -> None:
        self.calls += 1
        self._strike(took_effect=False)
        super().delete(name)
        self._strike(took_effect=True)

    def move(self, name: str, new_name: str) -> None:
        self.calls += 1
        self._strike(took_effect=False)
        super().move(name, new_name)
        self._strike(took_effect=True)

    def rmdir(self, name: str) -> None:
        self._strike(took_effect=False)
        super().rmdir(name)
        self._strike(took_effect=True)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    place = Scripted(Memory())
    place.create()
    place.open()
    place.store("item", b"value")
    yield place
    place.close()


def broken(retry_after: float | None = None) -> BackendError:
    return BackendConnectionError("connection reset", retry_after=retry_after)


def test_the_pauses_double_up_to_the_longest_and_the_last_error_is_told(
    scripted: Scripted, time: Time
) -> None:
    scripted.errors = [BackendConnectionError(str(number)) for number in range(7)]
    with pytest.raises(BackendConnectionError, match="6"):
        RetryLayer(scripted, time.schedule(attempts=7)).info("item")
    assert time.naps == [1, 2, 4, 8, 10, 10]
    assert scripted.calls == 7


def test_a_pause_is_random_so_that_clients_do_not_come_back_together(scripted: Scripted) -> None:
    naps: set[float] = set()
    layer = RetryLayer(scripted, Schedule(attempts=9, first=8.0, longest=8.0, sleep=naps.add))
    scripted.errors = [broken() for _ in range(8)]
    layer.info("item")
    assert len(naps) == 8
    assert all(0 <= nap <= 8 for nap in naps)


def test_what_the_place_asks_for_is_waited_for(scripted: Scripted, time: Time) -> None:
    scripted.errors = [broken(retry_after=30)]
    RetryLayer(scripted, time.schedule()).info("item")
    assert time.naps == [31]


def test_a_pause_beyond_the_deadline_is_not_begun(scripted: Scripted, time: Time) -> None:
    scripted.errors = [broken(), broken(retry_after=500)]
    with pytest.raises(BackendConnectionError):
        RetryLayer(scripted, time.schedule()).info("item")
    assert time.naps == [1]


def test_an_error_that_will_not_pass_is_told_at_once(scripted: Scripted, time: Time) -> None:
    scripted.errors = [PermissionDenied("no")]
    with pytest.raises(PermissionDenied):
        RetryLayer(scripted, time.schedule()).delete("item")
    assert (scripted.calls, time.naps) == (1, [])


def test_a_delete_whose_answer_was_lost_succeeds(scripted: Scripted, time: Time) -> None:
    scripted.after = True
    scripted.errors = [broken()]
    RetryLayer(scripted, time.schedule()).delete("item")
    assert not scripted.info("item").exists


def test_a_folder_whose_removal_was_not_answered_is_removed(scripted: Scripted, time: Time) -> None:
    scripted.mkdir("folder")
    scripted.after = True
    scripted.errors = [broken()]
    RetryLayer(scripted, time.schedule()).rmdir("folder")
    assert not scripted.info("folder").exists


def test_a_missing_item_is_told_where_no_attempt_failed(scripted: Scripted, time: Time) -> None:
    layer = RetryLayer(scripted, time.schedule())
    with pytest.raises(ObjectNotFound):
        layer.delete("nothing")
    with pytest.raises(ObjectNotFound):
        layer.move("nothing", "other")
    with pytest.raises(ObjectNotFound):
        layer.rmdir("nothing")


def test_a_move_whose_answer_was_lost_succeeds(scripted: Scripted, time: Time) -> None:
    scripted.after = True
    scripted.errors = [broken()]
    RetryLayer(scripted, time.schedule()).move("item", "folder/new")
    assert scripted.load("folder/new") == b"value"
    assert not scripted.info("item").exists


def test_a_move_without_a_trace_of_the_item_is_told(scripted: Scripted, time: Time) -> None:
    scripted.inner.delete("item")
    scripted.errors = [broken()]
    with pytest.raises(ObjectNotFound):
        RetryLayer(scripted, time.schedule()).move("item", "new")


def test_a_streamed_write_is_never_repeated_and_says_that_it_can_be(time: Time) -> None:
    class Full(Layer):
        commits = 0

        def open_writer(self, name: str, **options: object):  # type: ignore[no-untyped-def]
            writer = super().open_writer(name)
            commit = writer.commit

            def once() -> None:
                type(self).commits += 1
                if type(self).commits == 1:
                    raise broken()
                commit()

            writer.commit = once  # type: ignore[method-assign]
            return writer

    place = Full(Memory())
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        with pytest.raises(BackendConnectionError) as caught, layer.open_writer("item") as writer:
            writer.write(b"value")
        assert caught.value.retryable
        assert (Full.commits, time.naps) == (1, [])
        assert not layer.info("item").exists
        layer.store("item", b"value")
        assert layer.load("item") == b"value"


class Broken(Reader):
    """Delivers `good` bytes, then calls `then` and fails."""

    def __init__(self, reader: Reader, good: int, place: BreaksOff) -> None:
        self._reader = reader
        self._good = good
        self._place = place
        self.item_size = reader.item_size
        self.remaining = reader.remaining

    @property
    def version(self) -> str | None:
        return self._reader.version if self._place.versions else None

    def read(self, size: int) -> bytes:
        if not self._good:
            self._place.then()
            raise broken()
        data = self._reader.read(min(size, self._good))
        self._good -= len(data)
        self.remaining -= len(data)
        return data

    def close(self) -> None:
        self._reader.close()


class BreaksOff(Layer):
    """The first reader breaks off after ten bytes."""

    def __init__(self, inner: Backend, *, versions: bool) -> None:
        super().__init__(inner)
        self.versions = versions
        self.opened: list[int] = []
        self.read_again = 0

    def then(self) -> None:
        """What happens while the connection is broken."""

    def open_reader(self, name: str, *, offset: int = 0, size: int | None = None) -> Reader:
        reader = super().open_reader(name, offset=offset, size=size)
        self.opened.append(offset)
        return Broken(reader, 10 if len(self.opened) == 1 else 1 << 30, self)


@pytest.fixture(params=["disk", "memory"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "memory":
        return Memory()
    return PosixFS(str(tmp_path / "place"), durability="fast")


@pytest.mark.parametrize("versions", [True, False])
@pytest.mark.parametrize(("offset", "size"), [(0, None), (5, 40), (-50, 30), (-500, None)])
def test_a_download_goes_on_where_it_broke_off(
    inner: Backend, time: Time, versions: bool, offset: int, size: int | None
) -> None:
    value = bytes(range(100))
    place = BreaksOff(inner, versions=versions)
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        layer.store("item", value)
        got = layer.load("item", offset=offset, size=size)
    start = max(100 + offset, 0) if offset < 0 else offset
    assert got == value[start : 100 if size is None else start + size]
    assert place.opened[1:] == [start + 10 if versions else start], "no byte is fetched twice"


@pytest.mark.parametrize("versions", [True, False])
def test_a_download_never_joins_two_values(inner: Backend, time: Time, versions: bool) -> None:
    place = BreaksOff(inner, versions=versions)
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        layer.store("item", b"A" * 100)
        place.then = lambda: inner.store("item", b"B" * 100)  # type: ignore[method-assign]
        with layer.open_reader("item") as reader:
            assert reader.read(100) == b"A" * 10
            with pytest.raises(ReplacedMeanwhile):
                reader.read(100)
        place.opened.clear()
        place.then = lambda: inner.store("item", b"C" * 100)  # type: ignore[method-assign]
        assert layer.load("item") == b"C" * 100, "load begins anew by itself"


def test_a_download_of_a_deleted_item_is_told_as_such(time: Time) -> None:
    inner = Memory()
    place = BreaksOff(inner, versions=True)
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        layer.store("item", b"A" * 100)
        place.then = lambda: inner.delete("item")  # type: ignore[method-assign]
        with layer.open_reader("item") as reader:
            reader.read(100)
            with pytest.raises(ObjectNotFound):
                reader.read(100)


class BadListing(Layer):
    """Listings break off after a while, and come in another order each time."""

    def __init__(self, inner: Backend, after: list[int]) -> None:
        super().__init__(inner)
        self.after = after
        self.lists = 0

    def list(self, name: str) -> Iterator[ItemInfo]:
        self.lists += 1
        good = self.after.pop(0) if self.after else None
        entries = [*super().list(name)]
        random.Random(self.lists).shuffle(entries)
        for number, info in enumerate(entries):
            if number == good:
                raise broken()
            yield info


def test_a_listing_that_broke_off_is_complete_and_doubles_nothing(time: Time) -> None:
    place = BadListing(Memory(), [0, 3000, 1, 1, 4000, 2500])
    place.create()
    with RetryLayer(place, time.schedule()) as layer:
        names = {f"item{number}" for number in range(5000)}
        for name in names:
            layer.store(name, b"")
        listed = [info.name for info in layer.list("")]
    assert len(listed) == len(names)
    assert set(listed) == names
    assert place.lists == 7


def test_a_listing_that_never_gets_further_is_given_up(time: Time) -> None:
    place = BadListing(Memory(), [0] * 50)
    place.create()
    with RetryLayer(place, time.schedule(attempts=4)) as layer:
        layer.store("item", b"")
        with pytest.raises(BackendConnectionError):
            next(layer.list(""))
    assert place.lists == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attempts": 0}, "attempts: must be a whole number of at least 1, not 0"),
        ({"attempts": "often"}, "attempts: must be a whole number"),
        ({"deadline": "soon"}, "deadline: 'soon' is no time; write"),
        ({"first_pause": 20}, "longest_pause: must be at least first_pause, 20 s"),
        ({"tries": 3}, "tries: unknown option 'tries'.*attempts"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], says: str) -> None:
    with pytest.raises(LayerInvalid, match=f"layer retry: {says}"):
        open_place("memory:", layers=[{"layer": "retry", **options}])


# -- issue: 10,000 operations on a place where 20 % of the calls fail


@pytest.mark.parametrize("versions", [True, False])
@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_nothing_is_lost_doubled_or_wrong(tmp_path: Path, count: int, versions: bool) -> None:
    """Four threads, each with names of its own, do what clients do; a write that fails, they do
    again, as the error tells them. In the end the place holds exactly what they think it does."""
    disk = PosixFS(str(tmp_path / "place"), durability="fast")
    disk.create()
    flaky = FlakyPlace(disk, share=0.2, seed=count, sleep=lambda _: None, versions=versions)
    quick = Schedule(attempts=60, first=1e-5, longest=1e-4, deadline=3600, sleep=lambda _: None)
    clients = [Client(number, count // 4) for number in range(4)]
    with RetryLayer(flaky, quick) as layer:
        threads = [threading.Thread(target=client.work, args=[layer]) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in clients:
            if client.failure is not None:
                raise client.failure
    with disk:
        for client in clients:
            found = {
                info.name: disk.load(f"{client.folder}/{info.name}")
                for info in disk.list(client.folder)
            }
            assert found == client.expected
    assert sum(client.done for client in clients) == count
    assert flaky.faults.total() > count * 0.2, "the place was flaky"
    assert len(flaky.faults) > 20, "in many ways"


class Client:
    """Does operations at random and knows what must come of them."""

    def __init__(self, number: int, count: int) -> None:
        self.folder = f"client{number}"
        self.expected: dict[str, bytes] = {}
        self.failure: BaseException | None = None
        self.done = 0
        self._count = count
        self._random = random.Random(number)

    def work(self, place: Backend) -> None:
        try:
            place.mkdir(self.folder)
            while self.done < self._count:
                operation = self._random.choice(
                    [self._write, self._store, self._read, self._delete, self._move, self._list]
                )
                operation(place)
                self.done += 1
        except BaseException as failure:  # noqa: BLE001 - the test's thread raises it
            self.failure = failure

    def _name(self) -> str:
        return f"item{self._random.randrange(80)}"

    def _full(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _value(self) -> bytes:
        return self._random.randbytes(self._random.choice([0, 1, 1000, 40_000]))

    def _write(self, place: Backend) -> None:
        name, value = self._name(), self._value()
        while True:
            try:
                with place.open_writer(self._full(name), size=len(value)) as writer:
                    for start in range(0, len(value), 10_000):
                        writer.write(value[start : start + 10_000])
            except BackendError as error:
                if not error.retryable:
                    raise
                assert place.info(self._full(name)).size in (
                    len(value),
                    len(self.expected.get(name, b"")),
                )
            else:
                break
        self.expected[name] = value

    def _store(self, place: Backend) -> None:
        name, value = self._name(), self._value()
        place.store(self._full(name), value)
        self.expected[name] = value

    def _read(self, place: Backend) -> None:
        name = self._name()
        offset = self._random.choice([0, 0, 7, -13])
        if name in self.expected:
            value = self.expected[name]
            start = max(len(value) + offset, 0) if offset < 0 else offset
            assert place.load(self._full(name), offset=offset) == value[start:]
            assert place.info(self._full(name)).size == len(value)
        else:
            with pytest.raises(ObjectNotFound):
                place.load(self._full(name), offset=offset)
            assert not place.info(self._full(name)).exists

    def _delete(self, place: Backend) -> None:
        name = self._name()
        if name in self.expected:
            place.delete(self._full(name))
            del self.expected[name]
        elif not place.info(self._full(name)).exists:
            try:
                place.delete(self._full(name))
            except ObjectNotFound:
                return  # the usual answer; after a failed attempt the layer says done

    def _move(self, place: Backend) -> None:
        name, new = self._name(), self._name()
        if name in self.expected and name != new:
            place.move(self._full(name), self._full(new))
            self.expected[new] = self.expected.pop(name)

    def _list(self, place: Backend) -> None:
        listed = [(info.name, info.size) for info in place.list(self.folder)]
        assert len(listed) == len(set(listed))
        assert dict(listed) == {name: len(value) for name, value in self.expected.items()}
