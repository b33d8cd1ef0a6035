"""The one way from the async edge to blocking calls: a bounded pool of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Runs blocking calls beside the event loop, at most `limit` at a time; more wait in line."""

    def __init__(self, limit: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix=name)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `call` returns, or raise what it raises.

        When the task is cancelled, the call is waited for before CancelledError goes on: whoever
        cleans up then has the objects that it used to themselves.
        """
        loop = asyncio.get_running_loop()
        if kwargs:
            future = loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))
        else:
            future = loop.run_in_executor(self._pool, call, *args)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait((future,))
            raise

    def close(self) -> None:
        """Wait for running calls and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
