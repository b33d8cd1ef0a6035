"""Tasks: told of, followed as server-sent events, called off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pydantic import Field

from backupgw.runtime.jobs import Job, State, UnknownJob
from backupgw.runtime.threads import Threads

from ..core import Core
from .exchange import Exchange
from .models import FolderId, Limit, Model
from .operation import Call, Media, NoModel, Operation
from .task_documents import TaskDocument, TaskList, task_document

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy ends the connection."""


class TaskParameters(Model):
    """Which task."""

    task: str = Field(pattern=r"^[A-Za-z0-9@:. _-]{1,200}$")


class ListTasks(Model):
    """Which tasks."""

    folder: FolderId | None = Field(None, description="of this one; administrators see all")
    state: list[State] = Field(default=[], description="only these")
    limit: Limit = 100


def task_operations(core: Core, threads: Threads) -> list[Operation]:
    """Return the operations on tasks."""
    routes = _TaskRoutes(core, threads)
    one = "/v1/tasks/{task}"
    return [
        Operation(
            "GET",
            "/v1/tasks",
            routes.list,
            "List the latest tasks of a folder; of all, for administrators",
            parameters=ListTasks,
            answer=TaskList,
            tag="tasks",
        ),
        Operation(
            "GET",
            one,
            routes.find,
            "Tell about a task",
            parameters=TaskParameters,
            answer=TaskDocument,
            tag="tasks",
        ),
        Operation(
            "DELETE",
            one,
            routes.cancel,
            "Call a task off; one that has ended stays as it is",
            parameters=TaskParameters,
            answer=TaskDocument,
            tag="tasks",
        ),
        Operation(
            "GET",
            f"{one}/events",
            routes.events,
            "Follow a task until it has ended",
            parameters=TaskParameters,
            gives=Media(("text/event-stream",), "events `task`, each with a task as JSON"),
            tag="tasks",
            raw=True,
        ),
    ]


class _TaskRoutes:
    def __init__(self, core: Core, threads: Threads) -> None:
        self._core = core
        self._threads = threads

    def list(self, call: Call[ListTasks, NoModel]) -> TaskList:
        wanted = call.parameters
        found = self._core.tasks.listed(
            call.who, folder=wanted.folder, states=wanted.state, limit=wanted.limit
        )
        return TaskList(items=[task_document(job) for job in found])

    def find(self, call: Call[TaskParameters, NoModel]) -> TaskDocument:
        return task_document(self._core.tasks.find(call.who, call.parameters.task))

    def cancel(self, call: Call[TaskParameters, NoModel]) -> TaskDocument:
        return task_document(self._core.tasks.cancel(call.who, call.parameters.task))

    async def events(self, call: Call[TaskParameters, NoModel]) -> None:
        tasks, exchange = self._core.tasks, call.exchange
        task = call.parameters.task
        await self._threads.run(tasks.find, call.who, task)
        head = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            # nginx gathers answers into buffers unless it is told not to.
            (b"x-accel-buffering", b"no"),
        ]
        await exchange.start(200, head)
        following = tasks.follow(task)
        try:
            await _tell(exchange, following)
        except UnknownJob:
            pass  # it was removed meanwhile: there is nothing more to tell
        finally:
            await following.aclose()  # type: ignore[attr-defined]  # it is a generator
        await exchange.send_body(b"", more=False)


async def _tell(exchange: Exchange, following: AsyncIterator[Job]) -> None:
    leaving = asyncio.ensure_future(_left(exchange))
    upcoming: asyncio.Future[Job] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(following.__anext__())
            waited: set[asyncio.Future[Any]] = {upcoming, leaving}
            done, _ = await asyncio.wait(
                waited, timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED
            )
            if leaving in done:
                return
            if upcoming not in done:
                await exchange.send_body(b": \n\n", more=True)
                continue
            try:
                job = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            text = task_document(job).model_dump_json()
            await exchange.send_body(
                f"id: {job.version}\nevent: task\ndata: {text}\n\n".encode(), more=True
            )
    finally:
        leaving.cancel()
        if upcoming is not None:
            upcoming.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await upcoming


async def _left(exchange: Exchange) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
