"""The one store that a server offers, which clients create and destroy while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.threads import Threads

Opener = Callable[[ExitStack], Backend]
"""Opens the store, and leaves on the stack what closes it. Raises BackendDoesNotExist."""


class Shelf:
    """Opens the store when it is first asked for. Belongs to one event loop.

    Args:
        make: returns the bare place, not open, to create and destroy.
        opener: opens it with its layers.
        threads: where blocking calls run.
    """

    def __init__(self, make: Callable[[], Backend], opener: Opener, threads: Threads) -> None:
        self._make = make
        self._opener = opener
        self._threads = threads
        self._backend: Backend | None = None
        self._closing = ExitStack()
        self._users = 0
        self._alone = asyncio.Lock()
        self._left = asyncio.Event()

    async def borrow(self) -> Loan:
        """Return the open store, for an `async with` block.

        Raises:
            BackendDoesNotExist: there is none.
        """
        while (loan := self.borrow_nowait()) is None:
            async with self._alone:
                if self._backend is None:
                    self._backend = await self._threads.run(self._open)
        return loan

    @property
    def open_backend(self) -> Backend | None:
        """The store where it is open and stays so until somebody waits, else None."""
        return None if self._alone.locked() else self._backend

    def borrow_nowait(self) -> Loan | None:
        """What `borrow` returns, where that needs no waiting, else None."""
        backend = self.open_backend
        if backend is None:
            return None
        self._users += 1
        return Loan(self, backend)

    def give_back(self) -> None:
        """End a loan."""
        self._users -= 1
        if self._users == 0:
            self._left.set()

    async def create(self) -> None:
        """Make the store. Raises BackendAlreadyExists."""
        async with self._alone:
            await self._put_away()
            await self._threads.run(self._make().create)

    async def destroy(self) -> None:
        """Remove the store with all it holds. Raises BackendDoesNotExist."""
        async with self._alone:
            await self._put_away()
            await self._threads.run(self._make().destroy)

    async def check(self) -> None:
        """Find out whether the store is still there after something in it was not.

        Another process may have destroyed and made it anew: what is open then leads nowhere.

        Raises:
            BackendDoesNotExist: it is gone.
            BackendError: it was replaced; what failed can be tried again.
        """
        backend = self._backend
        if backend is None or (await self._threads.run(backend.info, "")).exists:
            return
        async with self._alone:
            if self._backend is backend:
                await self._put_away()
                self._backend = await self._threads.run(self._open)
        raise BackendError("the store was replaced meanwhile; try again", retryable=True)

    async def close(self) -> None:
        """Close the store when nobody uses it any more."""
        async with self._alone:
            await self._put_away()

    def _open(self) -> Backend:
        with ExitStack() as stack:
            backend = self._opener(stack)
            self._closing = stack.pop_all()
        return backend

    async def _put_away(self) -> None:
        while self._users:
            self._left.clear()
            await self._left.wait()
        self._backend = None
        await self._threads.run(self._closing.close)


class Loan:
    """The store, while somebody uses it."""

    __slots__ = ("_shelf", "backend")

    def __init__(self, shelf: Shelf, backend: Backend) -> None:
        self._shelf = shelf
        self.backend = backend

    def __enter__(self) -> Backend:
        return self.backend

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._shelf.give_back()
