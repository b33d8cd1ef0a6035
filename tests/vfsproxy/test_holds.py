"""Of two requests for an upload the later one is served, however close behind it comes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from backupgw.runtime.threads import Threads
from backupgw.vfsproxy.tus.holds import Holds
from backupgw.vfsproxy.tus.records import Held, Upload, UploadBusy

PATIENCE = 20.0
"""Seconds that nothing here may take, by far."""


class SlowStore:
    """Says who has the upload at once, and takes its time to answer the first who asks.

    Attributes:
        taken: somebody has it.
        refused: somebody was told that it is somebody else's.
        answers: the first answer, or the first refusal, is on its way when this is set.
    """

    def __init__(self, *, slow_refusal: bool = False) -> None:
        self.taken = threading.Event()
        self.refused = threading.Event()
        self.answers = threading.Event()
        self._slow_refusal = slow_refusal
        self._lock = threading.Lock()

    def take(self, upload_id: str, _lease: float, *, ending: bool) -> Held:
        with self._lock:
            had, first_refusal = self.taken.is_set(), not self.refused.is_set()
            (self.refused if had else self.taken).set()
        if (had and first_refusal) if self._slow_refusal else not had:
            assert self.answers.wait(PATIENCE)
        if had:
            raise UploadBusy
        return Held(Upload(upload_id, "f", "o", "n", 1), 1, died=False, ending=ending)


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE)


def test_who_comes_while_the_first_is_being_told_waits_for_it() -> None:
    async def work(threads: Threads) -> None:
        store: Any = SlowStore()
        holds = Holds(store, threads)
        first = asyncio.create_task(holds.take("a", ending=False))
        await until(store.taken)
        second = asyncio.create_task(holds.take("a", ending=False))
        await asyncio.sleep(0)
        await asyncio.to_thread(store.refused.wait, 0.1)
        store.answers.set()
        hold = await first
        assert hold is not None
        asked_to_let_go = asyncio.Event()
        hold.on_interrupt(asked_to_let_go.set)
        await asyncio.wait(
            [second, asyncio.create_task(asked_to_let_go.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert not second.done()
        store.taken.clear()
        await hold.end()
        again = await second
        assert again is not None
        await again.end()

    with contextlib.closing(Threads(4, "holds")) as threads:
        asyncio.run(asyncio.wait_for(work(threads), PATIENCE))


def test_who_is_told_of_one_that_has_let_go_meanwhile_asks_again() -> None:
    async def work(threads: Threads) -> None:
        store: Any = SlowStore(slow_refusal=True)
        holds = Holds(store, threads)
        hold = await holds.take("a", ending=False)
        assert hold is not None
        second = asyncio.create_task(holds.take("a", ending=False))
        await until(store.refused)
        store.taken.clear()
        await hold.end()
        store.answers.set()
        again = await second
        assert again is not None
        await again.end()

    with contextlib.closing(Threads(4, "holds")) as threads:
        asyncio.run(asyncio.wait_for(work(threads), PATIENCE))
