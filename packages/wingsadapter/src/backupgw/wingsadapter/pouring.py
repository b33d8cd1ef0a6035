"""What one writes piece by piece, read by another as it comes: a pipe and a thread between them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import BinaryIO, TypeVar

T = TypeVar("T")


def pour(
    produce: Callable[[Callable[[bytes], None]], object], consume: Callable[[BinaryIO], T]
) -> T:
    """Run both at once, and return what `consume` returns.

    Args:
        produce: called on a thread of its own with what takes the bytes, which raises
            BrokenPipeError once nobody reads them.
        consume: reads them.

    Raises:
        What either raises; where both do, what `produce` raises, unless that is the broken pipe
        alone: bytes that end early are the consequence, and not the cause.
    """
    incoming, outgoing = os.pipe2(os.O_CLOEXEC)
    failures: list[BaseException] = []

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(outgoing, view) :]

    def run() -> None:
        try:
            produce(write)
        except BaseException as error:  # noqa: BLE001 - raised below, by who waits
            failures.append(error)
        finally:
            os.close(outgoing)

    thread = threading.Thread(target=run, name="pour", daemon=True)
    thread.start()
    found: list[T] = []
    trouble: BaseException | None = None
    try:
        with open(incoming, "rb", buffering=0) as source:
            found.append(consume(source))
    except BaseException as error:  # noqa: BLE001 - raised below, unless it is a consequence
        trouble = error
    thread.join()
    with contextlib.suppress(IndexError):
        failure = failures[0]
        if trouble is None or not isinstance(_root(failure), BrokenPipeError):
            raise failure
    if trouble is not None:
        raise trouble
    return found[0]


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
