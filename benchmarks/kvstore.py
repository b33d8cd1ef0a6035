"""The Store against borgstore 0.7's, in one run.

    python -m benchmarks.kvstore [--folder DIR] [--rounds N] [--scale F] [--only WORD…] [--json]

Each round runs every measurement with both, in turn; printed are the medians over the rounds, and
the median of the ratios within a round: of the rates (ours / the other's), with the bounds in which
it lies with 95 % confidence, and of the processor time an operation takes (the other's / ours; of
this process, so without the servers). "Fast" leaves the syncs to the system, as borgstore does by
default. "Durable" is durability "full" against borgstore's do_fsync=True, which syncs no folder: a
power loss may take the name of what it acknowledged. The lines "unsynced" leave that sync out of
ours, for the same durability. Over HTTP each client talks to its own server, and neither syncs.

Stores go to folders that exist, as in a repository in use, but for "new folders". "8 threads, of
one" compares eight threads of ours with one of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from borgstore.backends.posixfs import PosixFS as BorgPosixFS  # type: ignore[import-untyped]
from borgstore.store import Store as BorgStore  # type: ignore[import-untyped]
from tests.servers.borg import BorgstoreServer, FastBorgServer

from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.backends.posixfs_writer import PosixWriter
from backupgw.kvstore.store import Store
from benchmarks.quota import confidence

CONFIG = {"data": {"levels": [2]}}
OURS, THEIRS = "backupgw", "borgstore"
LATENCY = "20000"
"""Microseconds that each call of the emulated far place takes."""

FOLDERS = 16
"""Folders of each level that exist before anything is stored."""


class Pace(NamedTuple):
    """Operations per second, and seconds of this process's processor time that each took."""

    rate: float
    cpu: float


Run = Callable[[str, Path], Pace]
"""Runs a measurement with one of the stores in an empty folder."""


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement: medians of rates in operations per second, and ratios of the pairs."""

    name: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    cpu_ratio: float
    wanted: float
    """The ratio of rates below which the kernel has missed what it must reach."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Something both stores do.

    Attributes:
        floor: the least ratio.
        of_one: what ours is compared with, where that is ours too, with one thread.
    """

    name: str
    run: Run
    floor: float
    of_one: Run | None = None


def on_disk(kind: str, folder: Path, *, durable: bool = False) -> Any:
    """Return a store on a folder, made and closed."""
    path = str(folder / "store")
    if kind == OURS:
        backend = PosixFS(path, durability="full" if durable else "fast")
        store: Any = Store(backend=backend, config=CONFIG)
    else:
        store = BorgStore(backend=BorgPosixFS(path, do_fsync=durable), config=CONFIG)
    store.create()
    return store


def name_of(number: int) -> str:
    """Return a key that nests as a hash would: in nearly every case into a folder of its own."""
    return f"data/{(number * 2654435761) % (1 << 32):08x}"


def known_name(number: int) -> str:
    """Return a key that nests into one of the folders that exist."""
    outer, inner = number % FOLDERS, number // FOLDERS % FOLDERS
    return f"data/{outer:02x}{inner:02x}{name_of(number).removeprefix('data/')}"


def make_folders(folder: Path) -> None:
    for number in range(FOLDERS * FOLDERS):
        (folder / "store/data" / f"{number % FOLDERS:02x}" / f"{number // FOLDERS:02x}").mkdir(
            parents=True, exist_ok=True
        )


def paced(count: int, work: Callable[[int], object], *, threads: int = 1) -> Pace:
    """Return the pace of `work(number)` for so many numbers, by all threads together."""
    barrier = threading.Barrier(threads + 1)

    def part(first: int) -> None:
        barrier.wait()
        for number in range(first, count, threads):
            work(number)

    workers = [threading.Thread(target=part, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    before = time.process_time()
    barrier.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - start
    return Pace(count / took, (time.process_time() - before) / count)


@contextmanager
def folders_unsynced() -> Iterator[None]:
    """Ours without the sync of folders, which borgstore leaves out."""
    with mock.patch.object(PosixWriter, "_sync_folders", return_value=None):
        yield


def stores(
    size: int,
    count: int,
    *,
    durable: bool,
    threads: int = 1,
    new_folders: bool = False,
    like_theirs: bool = False,
) -> Run:
    def run(kind: str, folder: Path) -> Pace:
        value = os.urandom(size)
        name = name_of if new_folders else known_name
        with on_disk(kind, folder, durable=durable) as store, ExitStack() as stack:
            if not new_folders:
                make_folders(folder)
            if like_theirs:
                stack.enter_context(folders_unsynced())
            return paced(count, lambda number: store.store(name(number), value), threads=threads)

    return run


def loads(size: int, count: int, *, threads: int = 1) -> Run:
    def run(kind: str, folder: Path) -> Pace:
        value = os.urandom(size)
        stored = max(1, min(count, (64 << 20) // size, 1000))
        with on_disk(kind, folder) as store:
            for number in range(stored):
                store.store(known_name(number), value)
            return paced(
                count, lambda number: store.load(known_name(number % stored)), threads=threads
            )

    return run


def far_away(count: int, threads: int) -> Run:
    """Loads from a place where each call takes 20 ms, as BORGSTORE_LATENCY emulates it."""

    def run(kind: str, folder: Path) -> Pace:
        with on_disk(kind, folder) as store:
            for number in range(count):
                store.store(known_name(number), b"x" * 1024)
        with mock.patch.dict(os.environ, BORGSTORE_LATENCY=LATENCY):
            path = str(folder / "store")
            cls, backend = (Store, PosixFS) if kind == OURS else (BorgStore, BorgPosixFS)
            with cls(backend=backend(path), config=CONFIG) as store:
                return paced(count, lambda number: store.load(known_name(number)), threads=threads)

    return run


@contextmanager
def over_http(kind: str, folder: Path) -> Iterator[Any]:
    """Yield an open store on a server of its own kind; neither server syncs."""
    server, store = (FastBorgServer, Store) if kind == OURS else (BorgstoreServer, BorgStore)
    with server(folder / "store") as running:
        client: Any = store(running.url, config=CONFIG)
        client.create()
        with client:
            yield client


def http_stores(count: int, *, threads: int = 1) -> Run:
    def run(kind: str, folder: Path) -> Pace:
        with over_http(kind, folder) as store:
            make_folders(folder)
            store.store(known_name(count), b"x" * 1024)
            return paced(
                count,
                lambda number: store.store(known_name(number), b"x" * 1024),
                threads=threads,
            )

    return run


def http_loads(count: int, *, threads: int = 1) -> Run:
    """Loads; borgstore's are fewer, because each waits 40 ms for an acknowledgement."""

    def run(kind: str, folder: Path) -> Pace:
        with over_http(kind, folder) as store:
            store.store("data/00000000", b"x" * 1024)
            many = count if kind == OURS else max(1, count // 10)
            return paced(many, lambda _number: store.load("data/00000000"), threads=threads)

    return run


def lists(count: int) -> Run:
    """Entries per second, in a child process that tells how its memory grows."""

    def run(kind: str, folder: Path) -> Pace:
        target = folder / "store" / "data"
        target.mkdir(parents=True)
        for number in range(count):
            os.close(os.open(target / f"{number:08x}", os.O_CREAT | os.O_WRONLY))
        command = [sys.executable, "-m", "benchmarks.kvstore", "--list", kind, str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found, seconds, cpu, grown = json.loads(done.stdout)
        if found != count:
            raise SystemExit(f"{kind} listed {found} of {count} entries")
        print(f"    {kind}: {grown / 1024:.1f} MiB more memory for {count} entries", flush=True)
        return Pace(count / seconds, cpu / count)

    return run


def list_in_a_child(kind: str, folder: Path) -> None:
    """List a store; print how many entries, the seconds, those of processor time, and the KiB
    that memory grew by."""
    path = str(folder / "store")
    config = {"data": {"levels": [0]}}
    store: Any
    if kind == OURS:
        store = Store(backend=PosixFS(path), config=config)
    else:
        store = BorgStore(backend=BorgPosixFS(path), config=config)
    with store:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu = time.perf_counter(), time.process_time()
        found = sum(1 for _ in store.list("data"))
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([found, took, cpu, grown]))


def measurements(scale: float) -> list[Measurement]:
    def n(count: int) -> int:
        return max(1, round(count * scale))

    small, big = 1024, 8 << 20

    def durable(size: int, count: int, *, threads: int = 1, **how: bool) -> Run:
        return stores(size, n(count), durable=True, threads=threads, **how)

    return [
        Measurement("store 1 KiB, fast", stores(small, n(3000), durable=False), 0.8),
        Measurement("store 1 KiB, durable", durable(small, 1000), 0.8),
        Measurement(
            "store 1 KiB, durable, folders unsynced", durable(small, 1000, like_theirs=True), 0.8
        ),
        Measurement(
            "store 1 KiB, durable, new folders", durable(small, 1000, new_folders=True), 0.8
        ),
        Measurement(
            "store 1 KiB, durable, new ones unsynced",
            durable(small, 1000, new_folders=True, like_theirs=True),
            0.8,
        ),
        Measurement("load 1 KiB", loads(small, n(20000)), 0.8),
        Measurement("store 8 MiB, fast", stores(big, n(24), durable=False), 0.8),
        Measurement("store 8 MiB, durable", durable(big, 12), 0.8),
        Measurement(
            "store 8 MiB, durable, folders unsynced", durable(big, 12, like_theirs=True), 0.8
        ),
        Measurement("load 8 MiB", loads(big, n(100)), 0.8),
        Measurement("store 1 KiB, 8 threads", durable(small, 3000, threads=8), 0.8),
        Measurement("load 1 KiB, 8 threads", loads(small, n(20000), threads=8), 0.8),
        Measurement(
            "store 1 KiB, 8 threads, of one",
            durable(small, 3000, threads=8),
            1.0,
            of_one=durable(small, 3000),
        ),
        Measurement(
            "load 1 KiB, 8 threads, of one",
            loads(small, n(20000), threads=8),
            1.0,
            of_one=loads(small, n(20000)),
        ),
        Measurement("load at 20 ms, 8 threads", far_away(n(160), 8), 6.0),
        Measurement("HTTP store 1 KiB", http_stores(n(1000)), 5.0),
        Measurement("HTTP load 1 KiB", http_loads(n(1000)), 50.0),
        Measurement("HTTP store 1 KiB, 8 threads", http_stores(n(1000), threads=8), 5.0),
        Measurement("HTTP load 1 KiB, 8 threads", http_loads(n(1000), threads=8), 5.0),
        Measurement("list", lists(n(1_000_000)), 0.8),
    ]


def compare(measurement: Measurement, folder: Path, rounds: int) -> Line:
    found: dict[str, list[Pace]] = {OURS: [], THEIRS: []}
    for number in range(rounds):
        for kind in (OURS, THEIRS) if number % 2 else (THEIRS, OURS):
            work = Path(tempfile.mkdtemp(dir=folder))
            try:
                if kind == THEIRS and measurement.of_one is not None:
                    found[kind].append(measurement.of_one(OURS, work))
                else:
                    found[kind].append(measurement.run(kind, work))
            finally:
                shutil.rmtree(work)
    pairs = list(zip(found[OURS], found[THEIRS], strict=True))
    ratios = [ours.rate / theirs.rate for ours, theirs in pairs]
    low, high = confidence(ratios)
    return Line(
        measurement.name,
        ours=statistics.median(pace.rate for pace in found[OURS]),
        theirs=statistics.median(pace.rate for pace in found[THEIRS]),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        cpu_ratio=statistics.median(theirs.cpu / ours.cpu for ours, theirs in pairs),
        wanted=measurement.floor,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", help="where to work; its disk is what is measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of operations")
    parser.add_argument("--only", nargs="*", help="measurements whose name has one of these words")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--list", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.list:
        list_in_a_child(options.list[0], Path(options.list[1]))
        return 0
    lines = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for measurement in measurements(options.scale):
            if options.only and not any(word in measurement.name for word in options.only):
                continue
            line = compare(measurement, Path(folder), options.rounds)
            lines.append(line)
            other = "borgstore" if measurement.of_one is None else "one thread"
            print(
                f"{line.name:39} {line.ours:10.1f}/s  {other:10} {line.theirs:10.1f}/s  "
                f"ratio {line.ratio:6.2f} (95 %: {line.low:.2f} to {line.high:.2f}, "
                f"floor {line.wanted:g})  processor {line.cpu_ratio:5.2f}",
                flush=True,
            )
    if options.json:
        print(json.dumps([asdict(line) for line in lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
