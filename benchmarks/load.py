"""The load generator: one process per connection, raw sockets, everything prepared beforehand.

A run is a list of tasks, one a connection. Each process connects, prepares its requests (bodies
hashed, heads built), sends one warm-up request so that the server knows its password, waits at a
barrier, and then works its requests off one after the other. The wall time runs from the first
request of any process to the last byte of any process.
"""

from __future__ import annotations

import base64
import hashlib
import mmap
import multiprocessing
import os
import random
import resource
import ssl
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier

from benchmarks.wire import BadResponse, Connection, Head

USER, PASSWORD = "bench", "benchmark-password"
LIST_V2 = b"Accept: application/vnd.x.restic.rest.v2\r\n"


@dataclass(frozen=True)
class Address:
    """Where a server listens; `authority_file` is the CA certificate when it speaks TLS."""

    host: str
    port: int
    authority_file: str | None = None

    def tls_context(self) -> ssl.SSLContext | None:
        if self.authority_file is None:
            return None
        return ssl.create_default_context(cafile=self.authority_file)


@dataclass(frozen=True)
class Blob:
    """A blob of the data set on disk: where it lies and how a client asks for it."""

    path: str
    target: str
    size: int


@dataclass(frozen=True)
class Upload:
    """POST `count` distinct blobs of `size` bytes to repository `repo`; `seed` makes them new."""

    repo: str
    count: int
    size: int
    seed: bytes


@dataclass(frozen=True)
class Download:
    """GET whole blobs, or ranges of `span` bytes at random offsets when `span` is not None."""

    blobs: Sequence[Blob]
    count: int
    span: int | None
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What the processes of one run report together (seconds, bytes)."""

    wall: float
    client_cpu: float
    requests: int
    body_bytes: int
    uploaded: tuple[str, ...]


Work = Callable[[], tuple[int, int, list[str]]]


def request_head(method: str, target: str, extra: bytes = b"") -> bytes:
    """The bytes of a request head as restic sends it, up to and with the empty line."""
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    return (
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
        + b"User-Agent: Go-http-client/1.1\r\nAuthorization: Basic "
        + token
        + b"\r\n"
        + extra
        + b"\r\n"
    )


def warm_up(connection: Connection) -> None:
    """Let the server check the password (bcrypt), which most remember, before anything is timed."""
    connection.send([request_head("HEAD", "/warm-up/config")])
    connection.bodyless(404)


def create_repository(address: Address, repo: str) -> None:
    """Create the type folders of a repository through the server's own protocol."""
    connection = Connection(address.host, address.port, tls=address.tls_context())
    connection.send([request_head("POST", f"/{repo}/?create=true", b"Content-Length: 0\r\n")])
    connection.stream(200)
    connection.close()


def read_list(address: Address, target: str) -> tuple[float, float, Head, bytearray]:
    """GET a list; seconds to the first and to the last byte, and the response."""
    connection = Connection(address.host, address.port, tls=address.tls_context())
    warm_up(connection)
    start = time.monotonic()
    connection.send([request_head("GET", target, LIST_V2)])
    connection.first_byte()
    first = time.monotonic() - start
    head, body = connection.stream(200)
    last = time.monotonic() - start
    connection.close()
    return first, last, head, body


def run(address: Address, tasks: Sequence[Upload | Download]) -> Outcome:
    """Run each task on a connection and a process of its own; raise BadResponse if one fails."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(tasks))
    pipes: list[Pipe] = []
    workers = []
    for task in tasks:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_worker, args=(address, task, barrier, theirs))
        worker.start()
        theirs.close()
        pipes.append(ours)
        workers.append(worker)
    reports = []
    for pipe in pipes:
        try:
            reports.append(pipe.recv())
        except EOFError:
            reports.append("a load process died")
    for worker in workers:
        worker.join()
    failures = [report for report in reports if isinstance(report, str)]
    if failures:
        raise BadResponse("\n".join(failures))
    return Outcome(
        wall=max(r[1] for r in reports) - min(r[0] for r in reports),
        client_cpu=sum(r[2] for r in reports),
        requests=sum(r[3] for r in reports),
        body_bytes=sum(r[4] for r in reports),
        uploaded=tuple(name for r in reports for name in r[5]),
    )


def _worker(address: Address, task: Upload | Download, barrier: Barrier, pipe: Pipe) -> None:
    try:
        capacity = max(
            (blob.size for blob in task.blobs) if isinstance(task, Download) else [1 << 20]
        )
        connection = Connection(
            address.host, address.port, tls=address.tls_context(), capacity=capacity
        )
        if isinstance(task, Upload):
            work = _prepare_upload(connection, task)
        else:
            work = _prepare_download(connection, task)
        warm_up(connection)
        barrier.wait(timeout=120)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        start = time.monotonic()
        requests, body_bytes, uploaded = work()
        end = time.monotonic()
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
        pipe.send((start, end, cpu, requests, body_bytes, uploaded))
    except Exception:  # noqa: BLE001 - the parent raises it; a load process has nobody else to tell
        barrier.abort()
        pipe.send(traceback.format_exc(limit=4))
    finally:
        pipe.close()


def _prepare_upload(connection: Connection, task: Upload) -> Work:
    # Distinct blobs for the price of one: the same random bytes with another end. The hash of the
    # shared part is computed once and continued for each end.
    pool = memoryview(random.Random(task.size).randbytes(task.size - 32))
    shared = hashlib.sha256(pool)
    prepared: list[tuple[bytes, bytes]] = []
    names = []
    for number in range(task.count):
        end = hashlib.sha256(task.seed + number.to_bytes(8, "big")).digest()
        digest = shared.copy()
        digest.update(end)
        name = digest.hexdigest()
        names.append(name)
        extra = f"Content-Type: application/octet-stream\r\nContent-Length: {task.size}\r\n"
        head = request_head("POST", f"/{task.repo}/data/{name}", extra.encode())
        prepared.append((head, end))

    def work() -> tuple[int, int, list[str]]:
        for head, end in prepared:
            connection.send([head, pool, end])
            connection.stream(200)
        return len(prepared), len(prepared) * task.size, names

    return work


def _prepare_download(connection: Connection, task: Download) -> Work:
    choose = random.Random(task.seed)
    sources = []
    for blob in task.blobs:
        descriptor = os.open(blob.path, os.O_RDONLY)
        sources.append(memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)))
        os.close(descriptor)
    prepared: list[tuple[bytes, int, int, memoryview]] = []
    for _ in range(task.count):
        index = choose.randrange(len(task.blobs))
        blob, source = task.blobs[index], sources[index]
        if task.span is None:
            # restic asks for whole packs as an open range; the answer is a 206 over all of it.
            head = request_head("GET", blob.target, b"Range: bytes=0-\r\n")
            prepared.append((head, 206, blob.size, source))
            continue
        start = choose.randrange(blob.size - task.span)
        end = start + task.span
        extra = f"Range: bytes={start}-{end - 1}\r\n".encode()
        head = request_head("GET", blob.target, extra)
        prepared.append((head, 206, task.span, source[start:end]))

    ranges = task.span is not None
    if not ranges:
        head, status, length, expected = prepared[0]
        connection.send([head])
        if bytes(connection.fixed(status, length)) != bytes(expected):
            raise BadResponse("a whole blob came back with other contents")

    def work() -> tuple[int, int, list[str]]:
        total = 0
        for number, (head, status, length, expected) in enumerate(prepared):
            connection.send([head])
            body = connection.fixed(status, length)
            # Both ends of every body, and the whole of every 64th range, are compared with the
            # file itself; whole blobs are compared before the timed part.
            same = body[:16] == expected[:16] and body[-16:] == expected[-16:]
            if same and ranges and number % 64 == 0:
                same = bytes(body) == bytes(expected)
            if not same:
                raise BadResponse(f"wrong contents in response {number}")
            total += length
        return len(prepared), total, []

    return work
