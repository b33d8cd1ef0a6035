"""Other processes that work on the same place at the same time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any

from ..backends.base import Backend
from .subject import Factory, Subject
from .verdicts import NotOffered, Violation

Job = tuple[Callable[..., Any], tuple[Any, ...]]
"""A module's function and its arguments, all of it picklable. It is called with an open backend, a
function that waits until all jobs of this run have called it, and then these arguments."""

Meet = Callable[[], object]
"""Waits until all jobs of a run are at the same point."""

_START = "start"


def need_processes(subject: Subject) -> None:
    """Raise NotOffered where no other process can see the place."""
    if not subject.backend.capabilities.shared:
        raise NotOffered("capabilities.shared is False: no other process sees the place")


def run_jobs(subject: Subject, jobs: Sequence[Job]) -> list[Any]:
    """Run each job in a process of its own, started together; return what they returned.

    Raises:
        Violation: one raised, or did not come back within the subject's patience.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(jobs), timeout=subject.patience)
    started = [_spawn(context, subject.factory, job, barrier) for job in jobs]
    try:
        for _, connection in started:
            _receive(connection, subject.patience)  # is open and ready
        for _, connection in started:
            connection.send(_START)
        return [_receive(connection, subject.patience) for _, connection in started]
    finally:
        for process, connection in started:
            _end(process, connection)


@contextmanager
def killed_after(subject: Subject, job: Job) -> Iterator[None]:
    """Run a job in a process and kill that (SIGKILL) when the job has returned, so that nothing
    it holds is let go of; the block runs after the kill."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(1)  # kept here: it is gone for the process too when it is collected
    process, connection = _spawn(context, subject.factory, job, barrier)
    try:
        _receive(connection, subject.patience)
        connection.send(_START)
        _receive(connection, subject.patience)
    finally:
        _end(process, connection)
    yield


def _spawn(
    context: SpawnContext, factory: Factory, job: Job, barrier: Barrier
) -> tuple[BaseProcess, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(factory, job, barrier, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _end(process: BaseProcess, connection: Connection) -> None:
    process.kill()
    process.join()
    process.close()
    connection.close()


def _receive(connection: Connection, patience: float) -> Any:
    if not connection.poll(patience):
        raise Violation(f"another process was stuck for {patience:g} s")
    try:
        problem, result = connection.recv()
    except EOFError:
        raise Violation("another process died") from None
    if problem is not None:
        raise Violation(f"another process: {problem}")
    return result


def _child(factory: Factory, job: Job, barrier: Barrier, connection: Connection) -> None:
    function, arguments = job
    try:
        backend: Backend = factory()
        backend.open()
        connection.send((None, None))
        connection.recv()
        # `held` lives until the parent has read the answer and kills this process
        held = function(backend, barrier.wait, *arguments)
        connection.send((None, held.answer if isinstance(held, Held) else held))
        connection.recv()
    except EOFError:
        return  # the parent has gone
    except Exception as error:  # noqa: BLE001 - reported to the parent, which fails the check
        connection.send((f"{type(error).__name__}: {error}", None))


class Held:
    """A job's answer together with something that must stay alive until the kill."""

    def __init__(self, answer: Any, what: object) -> None:
        self.answer = answer
        self.what = what
