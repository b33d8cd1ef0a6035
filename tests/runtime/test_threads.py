"""Blocking calls beside the loop: what comes back, and when."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from backupgw.runtime.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(2, "test")
    yield made
    made.close()


def test_results_and_errors_come_back(threads: Threads) -> None:
    async def main() -> None:
        assert await threads.run(divmod, 7, 2) == (3, 1)
        assert await threads.run(sorted, [1, 2], reverse=True) == [2, 1]
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 1, 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await threads.run(next, iter(()))

    asyncio.run(main())


def test_no_more_calls_at_a_time_than_allowed_and_all_in_turn(threads: Threads) -> None:
    running, most, order = 0, 0, []
    lock, go = threading.Lock(), threading.Barrier(2, timeout=20)

    def call(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            order.append(number)
        go.wait()  # two run at a time, or this would never end
        with lock:
            running -= 1
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*(threads.run(call, number) for number in range(20)))

    assert asyncio.run(main()) == list(range(20))
    assert most == 2
    assert [set(order[at : at + 2]) for at in (0, 18)] == [{0, 1}, {18, 19}]


def test_a_cancelled_task_waits_for_its_call(threads: Threads) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert go.wait(20)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(threads.run(call))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()
        assert await threads.run(abs, -1) == 1

    asyncio.run(main())


def test_the_end_waits_for_what_runs_and_drops_what_waits_in_line() -> None:
    threads = Threads(1, "test")
    begun, go, ran = threading.Event(), threading.Event(), []

    def call() -> None:
        begun.set()
        assert go.wait(20)
        ran.append("first")

    async def main() -> None:
        first = asyncio.create_task(threads.run(call))
        second = asyncio.create_task(threads.run(ran.append, "second"))
        await asyncio.to_thread(begun.wait, 20)
        threading.Timer(0.1, go.set).start()
        threads.close()
        assert ran == ["first"]
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(RuntimeError, match="ended"):
            await threads.run(abs, -1)

    asyncio.run(main())


def test_waking_a_thread_interrupts_nobody(threads: Threads) -> None:
    async def policy() -> int:
        return await threads.run(os.sched_getscheduler, 0)

    before = os.sched_getscheduler(0)
    assert before == os.SCHED_OTHER
    assert asyncio.run(policy()) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == before
