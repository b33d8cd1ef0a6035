"""The memory of parts goes back, also that of parts that failed."""

from __future__ import annotations

import gc
import weakref

import pytest
from tests.kvstore.scripted_target import Place, PlainTarget

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.backends.part_transfers import Part, PartPool
from backupgw.kvstore.backends.part_writer import PartWriter
from backupgw.kvstore.backends.plan import Plan
from backupgw.kvstore.layers.retry_schedule import Schedule

MB = 1 << 20
PART = 2 * MB


def store(pool: PartPool, target: PlainTarget, value: bytes) -> None:
    plan = Plan(target.name, len(value), if_absent=False, expected_hash=None)
    with PartWriter(pool, target, plan) as writer:
        for start in range(0, len(value), 100_000):
            writer.write(value[start : start + 100_000])


class Broken(PlainTarget):
    """Its library fails while it looks at what it sends."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, size=PART)
        self.views: list[weakref.ref[memoryview]] = []

    def put_part(self, state: str, part: Part, data: bytes | bytearray) -> str:
        self.put_whole(data)
        return ""

    def put_whole(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        self.views.append(weakref.ref(view))
        try:
            raise OSError("broken")
        except OSError as error:
            raise BackendError("broken", retryable=True) from error


@pytest.mark.parametrize("size", [PART, 5 * PART], ids=["whole", "in parts"])
@pytest.mark.parametrize("attempts", [1, 2])
def test_the_memory_of_what_failed_goes_without_the_collector(size: int, attempts: int) -> None:
    pool = PartPool(threads=4, schedule=Schedule(attempts=attempts, first=0.0))
    target = Broken(Place())
    gc.disable()
    try:
        with pytest.raises(BackendError, match="broken") as raised:
            store(pool, target, bytes(size))
        pool.close()
        del raised
        assert target.views
        assert not [view for view in target.views if view() is not None]
    finally:
        gc.enable()
