"""Several servers under the same load in short turns, so that a disturbance meets all of them.

The load has one process for each connection, as `load` has, and each process is connected to all
servers. A turn is some uploads to one server; what is needed for it is prepared before its time
begins. All servers have one folder, and nothing is removed from it meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import random
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks import load, process_tree
from benchmarks.peers import Server
from benchmarks.wire import BadResponse, Connection

REPO = "bench"


@dataclass(frozen=True)
class Turn:
    """What one turn took, in seconds for each upload."""

    wall: float
    server_cpu: float


class Load:
    """The processes that upload."""

    def __init__(self, servers: Sequence[Server], *, size: int, each: int) -> None:
        self._servers = servers
        self._size = size
        self._each = each
        self._turns = 0
        self._pipes: list[Pipe] = []

    @contextmanager
    def running(self, connections: int) -> Iterator[None]:
        """Have the processes running, one for each of so many connections to each server."""
        context = multiprocessing.get_context("fork")
        barrier = context.Barrier(connections + 1)
        workers = []
        for number in range(connections):
            ours, theirs = context.Pipe()
            arguments = (self._servers, number, self._size, self._each, barrier, theirs)
            workers.append(context.Process(target=_work, args=arguments))
            workers[-1].start()
            theirs.close()
            self._pipes.append(ours)
        self._barrier = barrier
        try:
            yield
        finally:
            barrier.abort()
            for pipe in self._pipes:
                with contextlib.suppress(BrokenPipeError):
                    pipe.send(None)
            for worker in workers:
                worker.join(60)

    def turn(self, index: int) -> Turn:
        """Upload to one of the servers. Raises BadResponse."""
        self._turns += 1
        for pipe in self._pipes:
            pipe.send((index, self._turns))
        for pipe in self._pipes:
            self._said(pipe)  # ready
        before = process_tree.cpu_nanoseconds(self._servers[index].pid)
        self._barrier.wait(timeout=60)
        spans = [self._said(pipe) for pipe in self._pipes]
        spent = process_tree.cpu_nanoseconds(self._servers[index].pid) - before
        count = self._each * len(self._pipes)
        wall = max(end for _, end in spans) - min(start for start, _ in spans)
        return Turn(wall / count, spent / 1e9 / count)

    def _said(self, pipe: Pipe) -> tuple[float, float]:
        try:
            said = pipe.recv()
        except EOFError:
            raise BadResponse("a load process died") from None
        if isinstance(said, str):
            raise BadResponse(said)
        found: tuple[float, float] = said
        return found

    def check(self, store: Path) -> None:
        """Raise BadResponse unless every blob is there in full length; some are hashed."""
        blobs = list((store / REPO / "data").glob("*/*"))
        wanted = self._turns * self._each * len(self._pipes)
        if len(blobs) != wanted:
            raise BadResponse(f"{wanted} uploads were acknowledged, {len(blobs)} blobs are there")
        for blob in blobs:
            if blob.stat().st_size != self._size:
                raise BadResponse(f"{blob.name} was acknowledged and cut short")
        for blob in random.Random(1).sample(blobs, min(200, len(blobs))):
            if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
                raise BadResponse(f"wrong contents in {blob.name}")


def _work(
    servers: Sequence[Server], number: int, size: int, each: int, barrier: Barrier, pipe: Pipe
) -> None:
    try:
        connections = []
        for server in servers:
            connection = Connection(server.address.host, server.address.port, tls=None)
            load.warm_up(connection)
            connections.append(connection)
        pool = random.Random(size).randbytes(size - 32)
        shared = hashlib.sha256(pool)
        while True:
            task = pipe.recv()
            if task is None:
                return
            index, turn = task
            prepared = list(_requests(shared, size, f"{number} {turn}", each))
            pipe.send((0.0, 0.0))
            barrier.wait(timeout=60)
            send, answer = connections[index].send, connections[index].stream
            start = time.monotonic()
            for head, end in prepared:
                send([head, pool, end])
                answer(200)
            pipe.send((start, time.monotonic()))
    except Exception:  # noqa: BLE001 - the parent raises it; a load process has nobody else to tell
        barrier.abort()
        pipe.send(traceback.format_exc(limit=4))


def _requests(
    shared: hashlib._Hash, size: int, seed: str, count: int
) -> Iterator[tuple[bytes, bytes]]:
    """Yield head and end of distinct blobs that have all but their end in common."""
    extra = f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n".encode()
    for number in range(count):
        end = hashlib.sha256(f"{seed} {number}".encode()).digest()
        digest = shared.copy()
        digest.update(end)
        target = f"/{REPO}/data/{digest.hexdigest()}"
        yield load.request_head("POST", target, extra), end
