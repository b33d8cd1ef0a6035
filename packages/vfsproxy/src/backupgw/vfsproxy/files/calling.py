"""Calls of the kernel from the async edge: on a thread, and with words that a client may hear."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from backupgw.kvstore.backends.errors import BackendError
from backupgw.kvstore.names import InvalidName
from backupgw.runtime.threads import Threads

from .refusals import refusal_of

T = TypeVar("T")


async def on_thread(threads: Threads, name: str, call: Callable[[], T]) -> T:
    """Return what `call` returns.

    Args:
        name: the item that it is about, as the client knows it.

    Raises:
        FileRefusal: the kernel refused, or failed.
    """
    try:
        return await threads.run(call)
    except (BackendError, InvalidName) as error:
        raise refusal_of(error, name) from error
