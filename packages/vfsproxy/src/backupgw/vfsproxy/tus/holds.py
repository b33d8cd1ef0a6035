"""Which request has an upload: one at a time, of all gateways together.

A client whose connection broke comes back while the old request still waits for bytes that will
never come. So whoever comes later is served: the request that has the upload is told to keep what
it has and let go. In this process that takes a moment, in which the newcomer waits; another gateway
learns of it when it renews its lease, and the newcomer is asked to come again (423).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Protocol

from backupgw.runtime.database import DatabaseError
from backupgw.runtime.threads import Threads

from ..files.refusals import FileRefusal
from .records import Held, Upload, UploadBusy, UploadLost, UploadStore

logger = logging.getLogger(__name__)

LEASE = 12.0
"""Seconds after which a gateway that does not renew its lease is taken for dead."""
RENEW = 3.0
"""Seconds between two renewals; also how long another gateway waits to be heard."""
PATIENCE = 20.0
"""Seconds that a newcomer waits for a request of this process to let go."""


def locked(detail: str) -> FileRefusal:
    """Say that an upload is somebody else's now."""
    return FileRefusal(423, "upload-locked", detail, {"Retry-After": str(round(RENEW))})


class Holding(Protocol):
    """An upload that is this request's."""

    held: Held

    @property
    def upload(self) -> Upload:
        """The upload as it was found."""

    def good(self) -> bool:
        """Whether the lease still holds: nothing may be written to the volume without it."""


class ShortHold:
    """An upload that one call on a thread has, for less than the lease."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self._good_until = time.monotonic() + LEASE

    @property
    def upload(self) -> Upload:
        return self.held.upload

    def good(self) -> bool:
        return time.monotonic() < self._good_until


class Hold:
    """An upload that is this request's.

    Attributes:
        lost: whether somebody else may have it by now.
    """

    def __init__(self, holds: Holds, held: Held) -> None:
        self._holds = holds
        self._interrupt: Callable[[], object] | None = None
        self._interrupted = False
        self._ended = asyncio.get_running_loop().create_future()
        self._good_until = time.monotonic() + LEASE
        self._renewing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.held = held
        self.lost = False

    @property
    def upload(self) -> Upload:
        """The upload as it was found."""
        return self.held.upload

    @property
    def interrupted(self) -> bool:
        """Whether somebody else waits for the upload, or has it already."""
        return self._interrupted

    def on_interrupt(self, call: Callable[[], object] | None) -> None:
        """Say what ends the waiting for more; called at once where somebody waits already."""
        self._interrupt = call
        if call is not None and self._interrupted:
            call()

    def interrupt(self) -> None:
        """Ask to keep what there is and let go; said once, however many wait.

        A second cancellation would not wait for the thread that is writing.
        """
        if self._interrupted:
            return
        self._interrupted = True
        if self._interrupt is not None:
            self._interrupt()

    async def ended(self) -> None:
        """Wait until it is let go of."""
        await asyncio.shield(self._ended)

    def good(self) -> bool:
        """Whether the lease still holds: nothing may be written to the volume without it."""
        if time.monotonic() >= self._good_until:
            self.lost = True
        return not self.lost

    def start(self) -> None:
        """Renew the lease from now on."""
        self._timer = asyncio.get_running_loop().call_later(RENEW, self._begin_renewing)

    def _begin_renewing(self) -> None:
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        while not self.lost:
            asked = time.monotonic()
            try:
                if await self._holds.threads.run(self._holds.store.renew, self.held, LEASE):
                    self.interrupt()
                self._good_until = asked + LEASE
            except UploadLost:
                self.lost = True
                self.interrupt()
            except DatabaseError as error:
                logger.warning("the lease of upload %s: %s", self.upload.id, error)
                if not self.good():
                    self.interrupt()
            await asyncio.sleep(RENEW)  # a heartbeat: nothing is waited for

    async def end(self) -> None:
        """Stop renewing, and let those who wait go on."""
        if self._timer is not None:
            self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        self._holds.forget(self)
        if not self._ended.done():
            self._ended.set_result(None)


class Holds:
    """Takes uploads for the requests of this process.

    Args:
        store: remembers who has which.
        threads: where it is asked.
    """

    def __init__(self, store: UploadStore, threads: Threads) -> None:
        self.store = store
        self.threads = threads
        self._here: dict[str, Hold] = {}
        self._asked: dict[str, asyncio.Future[None]] = {}
        """Uploads that the store is asked for just now, each until the answer is here."""

    async def take(self, upload_id: str, *, ending: bool) -> Hold | None:
        """Make an upload this request's; None where there is none. `Hold.end` has to follow.

        Raises:
            FileRefusal: 423, somebody else has it and did not let go.
        """
        give_up = time.monotonic() + PATIENCE
        while True:
            here = self._here.get(upload_id)
            try:
                return await self._ask(upload_id, ending=ending)
            except UploadBusy:
                # Who had it then may have let go by now.
                await self._wait_for(self._here.get(upload_id, here), give_up)

    async def _ask(self, upload_id: str, *, ending: bool) -> Hold | None:
        # One at a time: who has it by the store and not yet by this process could not be
        # asked to let go.
        while (asked := self._asked.get(upload_id)) is not None:
            await asyncio.shield(asked)
        asked = self._asked[upload_id] = asyncio.get_running_loop().create_future()
        try:
            held = await self.threads.run(self.store.take, upload_id, LEASE, ending=ending)
            if held is None:
                return None
            hold = self._here[upload_id] = Hold(self, held)
        finally:
            del self._asked[upload_id]
            asked.set_result(None)
        hold.start()
        return hold

    async def _wait_for(self, here: Hold | None, give_up: float) -> None:
        left = give_up - time.monotonic()
        if here is not None and left > 0:
            here.interrupt()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await here.ended()
                    return
        raise locked("another request works on this upload; it was asked to let go: try again")

    def forget(self, hold: Hold) -> None:
        """A request has let go."""
        if self._here.get(hold.upload.id) is hold:
            del self._here[hold.upload.id]
