"""Begin to answer at once; make a task of it only where the answer has to wait.

Most answers from the page cache never wait: a task of their own, and the turn of the event loop
that it begins in, would be a tenth of what they cost. (Python 3.12 has eager tasks for this.)
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

PROMISE = "begins_without_task"
"""Attribute of an application that asks for no current task (asyncio.timeout, task groups, anyio)
before it has waited for the first time. Only then is it begun at once."""

NOWAIT = "answer_nowait"
"""Attribute of such an application: an `AnswerNowait`, tried first where the whole request came at
once. A coroutine within a coroutine costs as much as what a small answer takes otherwise."""

AnswerNowait = Callable[[dict[str, Any], bytes], bool]
"""Answers a request, of which it gets scope and body, by `exchange.ANSWER_LINES` before it returns
True. False, or an error, leaves it to the application's ordinary way."""


def begin(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]
) -> asyncio.Task[None] | None:
    """Run `coroutine` up to where it waits; return the task that carries it on, None at its end.

    It has a context of its own, as in a task.
    """
    context = contextvars.copy_context()
    try:
        waited_for = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return loop.create_task(_carry_on(coroutine, waited_for), context=context)


async def _carry_on(coroutine: Coroutine[Any, Any, None], waited_for: Any) -> None:
    await _delegate(coroutine, waited_for)


@types.coroutine
def _delegate(coroutine: Coroutine[Any, Any, None], waited_for: Any) -> Generator[Any, Any, None]:
    """`yield from coroutine`, which has yielded `waited_for` already."""
    try:
        while True:
            try:
                value = yield waited_for
            except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
                waited_for = coroutine.throw(error)
            else:
                waited_for = coroutine.send(value)
    except StopIteration:
        return
