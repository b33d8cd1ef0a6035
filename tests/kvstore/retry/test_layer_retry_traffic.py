"""Many operations on a place where 20 % of the calls fail: nothing is lost, doubled or wrong."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from tests.kvstore.flaky_place import FlakyPlace

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError, ObjectNotFound
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.retry import RetryLayer
from backupgw.kvstore.layers.retry_schedule import Schedule

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
