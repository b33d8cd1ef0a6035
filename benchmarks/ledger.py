"""What the ledger costs an upload: the same uploads with the quota layer and without, in one run.

    python -m benchmarks.ledger [--folder DIR] [--uploads N] [--rounds N] [--threads N]
        [--processes N] [--size BYTES] [--postgres] [--json]

Each round uploads the same number of items to a fresh disk place (durability "full") twice, off
and on in turn, so that a disturbance meets both. Prints the median wall time and CPU time of an
upload for both, the ratio of each pair, and what intend and settle cost by themselves. The ledger
is SQLite's, or with --postgres one in a PostgreSQL that is started for it on this machine, synced
to the same disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.ledger import NOTHING, Amount, Effect, Ledger, Limit, SQLiteLedger

SCOPES = ("server", "user:alice", "repo:alice/main")


@dataclass(frozen=True, slots=True)
class Result:
    """Microseconds for an upload, medians over the rounds; ratios are on / off."""

    uploads: int
    rounds: int
    threads: int
    processes: int
    size: int
    ledger: str
    off_wall: float
    on_wall: float
    wall_ratio: float
    off_cpu: float
    on_cpu: float
    cpu_ratio: float
    ledger_alone: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", help="where to work; its disk is what is measured")
    parser.add_argument("--uploads", type=int, default=1500, help="in each half of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=5, help="in each process")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--size", type=int, default=20_000, help="bytes of an item")
    parser.add_argument("--postgres", action="store_true", help="the ledger in PostgreSQL")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, database(options):
        result = measure(folder, options)
    if options.json:
        print(json.dumps(asdict(result)))
        return 0
    print(
        f"{result.ledger}, {result.size} bytes, {result.processes} x {result.threads} at a time, "
        f"median of {result.rounds} rounds of {result.uploads}\n"
        f"  wall   off {result.off_wall:7.0f} us   on {result.on_wall:7.0f} us   "
        f"ratio {result.wall_ratio:.3f}\n"
        f"  CPU    off {result.off_cpu:7.0f} us   on {result.on_cpu:7.0f} us   "
        f"ratio {result.cpu_ratio:.3f}\n"
        f"  intend and settle alone, one thread: {result.ledger_alone:.0f} us"
    )
    return 0


@contextmanager
def database(options: argparse.Namespace) -> Iterator[None]:
    """Run a PostgreSQL if it is wanted, and note its URL in the options."""
    options.url = None
    if not options.postgres:
        yield
        return
    from tests.servers.postgres import Postgres

    from backupgw.runtime.database import connect, schema

    with Postgres(flags=("fsync=on", "shared_buffers=128MB")) as server:
        options.url = server.new_database()
        with connect(options.url) as state:
            schema.migrate(state)
        yield


@contextmanager
def open_ledger(path: str, options: argparse.Namespace) -> Iterator[Ledger]:
    """Open the ledger that is measured."""
    if options.url is None:
        with SQLiteLedger(path) as ledger:
            yield ledger
        return
    from backupgw.runtime.database import open_database
    from backupgw.runtime.ledger import PostgresLedger

    with open_database(options.url) as state, PostgresLedger(state) as shared:
        yield shared


def measure(folder: str, options: argparse.Namespace) -> Result:
    halves: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for number in range(options.rounds + 1):
        for quota in (False, True) if number % 2 else (True, False):
            half = run_half(os.path.join(folder, "place"), options, quota=quota)
            if number > 0:  # the first round warms up
                halves[quota].append(half)
    pairs = list(zip(halves[False], halves[True], strict=True))
    return Result(
        options.uploads,
        options.rounds,
        options.threads,
        options.processes,
        options.size,
        "PostgreSQL" if options.postgres else "SQLite",
        off_wall=statistics.median(wall for wall, _ in halves[False]),
        on_wall=statistics.median(wall for wall, _ in halves[True]),
        wall_ratio=statistics.median(on[0] / off[0] for off, on in pairs),
        off_cpu=statistics.median(cpu for _, cpu in halves[False]),
        on_cpu=statistics.median(cpu for _, cpu in halves[True]),
        cpu_ratio=statistics.median(on[1] / off[1] for off, on in pairs),
        ledger_alone=alone(os.path.join(folder, "alone.sqlite3"), options),
    )


def run_half(folder: str, options: argparse.Namespace, *, quota: bool) -> tuple[float, float]:
    """Return the wall time, as each upload sees it, and CPU time of an upload, in microseconds."""
    PosixFS(folder).create()
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(options.processes + 1)
    results = context.SimpleQueue()
    each = options.uploads // options.processes
    workers = [
        context.Process(target=work, args=(folder, options, each, number, quota, ready, results))
        for number in range(options.processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.perf_counter()
    spent = [results.get() for _ in workers]
    elapsed = time.perf_counter() - started
    for worker in workers:
        worker.join()
    shutil.rmtree(folder)
    count = each * options.processes
    at_once = options.threads * options.processes
    return elapsed / count * at_once * 1e6, sum(spent) / count * 1e6


def work(  # type: ignore[no-untyped-def]  # multiprocessing's own types are private
    folder, options: argparse.Namespace, count: int, number: int, quota: bool, ready, results
) -> None:
    if not quota:
        results.put(upload_all(PosixFS(folder), options, count, number, ready))
        return
    with open_ledger(folder + ".ledger.sqlite3", options) as ledger:
        for scope in SCOPES:
            ledger.set_limit(scope, Limit(hard_bytes=1 << 40, hard_objects=1 << 30))
        place = QuotaLayer(PosixFS(folder), ledger, lambda _name: SCOPES)
        results.put(upload_all(place, options, count, number, ready))
        ledger.forget("")


def upload_all(  # type: ignore[no-untyped-def]
    place: Backend, options: argparse.Namespace, count: int, number: int, ready
) -> float:
    """Return the seconds of CPU time that the uploads took."""
    body = os.urandom(options.size)
    with place:
        ready.wait()
        before = time.process_time()
        threads = [
            threading.Thread(target=upload, args=(place, body, count, number, each, options))
            for each in range(options.threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.process_time() - before


def upload(
    place: Backend, body: bytes, count: int, process: int, thread: int, options: argparse.Namespace
) -> None:
    for index in range(thread, count, options.threads):
        name = f"alice/main/data/{index % 256:02x}/{process:08x}{index:056x}"
        with place.open_writer(name, size=len(body), if_absent=True) as writer:
            writer.write(body)


def alone(path: str, options: argparse.Namespace, count: int = 2000) -> float:
    """Return the microseconds of an intend and its settle."""
    with open_ledger(path, options) as ledger:
        for scope in SCOPES:
            ledger.set_limit(scope, Limit(hard_bytes=1 << 40))
        started = time.perf_counter()
        for index in range(count):
            name = f"alice/main/data/00/{index:064x}"
            with ledger.changing("", [name]):
                effect = Effect(name, SCOPES, NOTHING, Amount(20_000, 1))
                ledger.settle(ledger.intend("", [effect]))
        return (time.perf_counter() - started) / count * 1e6


if __name__ == "__main__":
    sys.exit(main())
