"""The Store against borgstore 0.7's, in one run.

    python -m benchmarks.kvstore [--folder DIR] [--rounds N] [--scale F] [--only NAME…] [--json]

Each round runs every measurement with both stores, in turn; printed are the medians over the
rounds, and the median of the ratios (ours / borgstore's rate) within a round. Both stores are as
durable as the line says: "fast" leaves the syncs to the system, as borgstore does by default.
Over HTTP each client talks to its own server.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from borgstore.backends.posixfs import PosixFS as BorgPosixFS  # type: ignore[import-untyped]
from borgstore.store import Store as BorgStore  # type: ignore[import-untyped]
from tests.servers.borg import BorgServer, BorgstoreServer

from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.store import Store

CONFIG = {"data": {"levels": [2]}}
OURS, THEIRS = "backupgw", "borgstore"
LATENCY = "20000"
"""Microseconds that each call of the emulated far place takes."""


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement: medians of rates in operations per second, and the ratio of the pairs."""

    name: str
    ours: float
    theirs: float
    ratio: float
    wanted: float
    """The ratio below which the kernel has missed what it must reach."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Something both stores do.

    Attributes:
        run: returns operations per second of one of them, in an empty folder.
        floor: the least ratio.
    """

    name: str
    run: Callable[[str, Path], float]
    floor: float


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


def rate(count: int, work: Callable[[int], object]) -> float:
    """Return operations per second of `work(number)`."""
    start = time.perf_counter()
    for number in range(count):
        work(number)
    return count / (time.perf_counter() - start)


def name_of(number: int) -> str:
    """Return a key that nests as a hash would."""
    return f"data/{(number * 2654435761) % (1 << 32):08x}"


def threaded(count: int, threads: int, work: Callable[[int], object]) -> float:
    """Return operations per second of all threads together."""
    barrier = threading.Barrier(threads + 1)

    def part(first: int) -> None:
        barrier.wait()
        for number in range(first, count, threads):
            work(number)

    workers = [threading.Thread(target=part, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return count / (time.perf_counter() - start)


def stores(size: int, count: int, *, durable: bool, threads: int = 1) -> Callable[..., float]:
    def run(kind: str, folder: Path) -> float:
        value = os.urandom(size)
        with on_disk(kind, folder, durable=durable) as store:
            return threaded(count, threads, lambda number: store.store(name_of(number), value))

    return run


def loads(size: int, count: int, *, threads: int = 1) -> Callable[..., float]:
    def run(kind: str, folder: Path) -> float:
        value = os.urandom(size)
        with on_disk(kind, folder) as store:
            for number in range(count):
                store.store(name_of(number), value)
            return threaded(count, threads, lambda number: store.load(name_of(number)))

    return run


def far_away(count: int, threads: int) -> Callable[..., float]:
    """Loads from a place where each call takes 20 ms, as BORGSTORE_LATENCY emulates it."""

    def run(kind: str, folder: Path) -> float:
        before = os.environ.get("BORGSTORE_LATENCY")
        with on_disk(kind, folder) as store:
            for number in range(count):
                store.store(name_of(number), b"x" * 1024)
        os.environ["BORGSTORE_LATENCY"] = LATENCY
        try:
            path = str(folder / "store")
            cls, backend = (Store, PosixFS) if kind == OURS else (BorgStore, BorgPosixFS)
            with cls(backend=backend(path), config=CONFIG) as store:
                return threaded(count, threads, lambda number: store.load(name_of(number)))
        finally:
            if before is None:
                del os.environ["BORGSTORE_LATENCY"]
            else:
                os.environ["BORGSTORE_LATENCY"] = before

    return run


class FastServer(BorgServer):
    """Ours, leaving the syncs to the system as borgstore's server does."""

    def command(self) -> Sequence[str]:
        settings = self.folder.parent / "fast.toml"
        settings.write_text(f'[places.borg]\nurl = "{self.folder.as_uri()}"\ndurability = "fast"\n')
        program = str(Path(sys.executable).parent / "backupgw")
        return [program, "--config", str(settings), "borg", "serve", "--listen", "127.0.0.1:0"]


@contextmanager
def over_http(kind: str, folder: Path) -> Iterator[Any]:
    """Yield an open store on a server of its own kind; neither server syncs."""
    server, store = (FastServer, Store) if kind == OURS else (BorgstoreServer, BorgStore)
    with server(folder / "store") as running:
        client: Any = store(running.url, config=CONFIG)
        client.create()
        with client:
            yield client


def http_stores(count: int) -> Callable[..., float]:
    def run(kind: str, folder: Path) -> float:
        with over_http(kind, folder) as store:
            return rate(count, lambda number: store.store(name_of(number), b"x" * 1024))

    return run


def http_loads(count: int) -> Callable[..., float]:
    def run(kind: str, folder: Path) -> float:
        with over_http(kind, folder) as store:
            store.store("data/00000000", b"x" * 1024)
            return rate(count, lambda _number: store.load("data/00000000"))

    return run


def lists(count: int) -> Callable[..., float]:
    """Entries per second; the child process also checks that its memory stays the same."""

    def run(kind: str, folder: Path) -> float:
        target = folder / "store" / "data"
        target.mkdir(parents=True)
        for number in range(count):
            os.close(os.open(target / f"{number:08x}", os.O_CREAT | os.O_WRONLY))
        command = [sys.executable, "-m", "benchmarks.kvstore", "--list", kind, str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found, seconds, grown = json.loads(done.stdout)
        if found != count:
            raise SystemExit(f"{kind} listed {found} of {count} entries")
        print(f"    {kind}: {grown / 1024:.1f} MiB more memory for {count} entries", flush=True)
        return count / float(seconds)

    return run


def list_in_a_child(kind: str, folder: Path) -> None:
    """List a store; print how many entries, the seconds, and the KiB that memory grew by."""
    path = str(folder / "store")
    config = {"data": {"levels": [0]}}
    store: Any
    if kind == OURS:
        store = Store(backend=PosixFS(path), config=config)
    else:
        store = BorgStore(backend=BorgPosixFS(path), config=config)
    with store:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        found = sum(1 for _ in store.list("data"))
        took = time.perf_counter() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([found, took, grown]))


def measurements(scale: float) -> list[Measurement]:
    def n(count: int) -> int:
        return max(1, round(count * scale))

    small, big = 1024, 8 << 20
    return [
        Measurement("store 1 KiB, fast", stores(small, n(3000), durable=False), 0.8),
        Measurement("store 1 KiB, durable", stores(small, n(1000), durable=True), 0.8),
        Measurement("load 1 KiB", loads(small, n(5000)), 0.8),
        Measurement("store 8 MiB, fast", stores(big, n(24), durable=False), 0.8),
        Measurement("store 8 MiB, durable", stores(big, n(12), durable=True), 0.8),
        Measurement("load 8 MiB", loads(big, n(24)), 0.8),
        Measurement("store 1 KiB, 8 threads", stores(small, n(3000), durable=True, threads=8), 0.8),
        Measurement("load 1 KiB, 8 threads", loads(small, n(5000), threads=8), 0.8),
        Measurement("load at 20 ms, 8 threads", far_away(n(160), 8), 6.0),
        Measurement("HTTP store 1 KiB", http_stores(n(300)), 5.0),
        Measurement("HTTP load 1 KiB", http_loads(n(300)), 50.0),
        Measurement("list", lists(n(1_000_000)), 0.8),
    ]


def compare(measurement: Measurement, folder: Path, rounds: int) -> Line:
    found: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for number in range(rounds):
        for kind in (OURS, THEIRS) if number % 2 else (THEIRS, OURS):
            work = Path(tempfile.mkdtemp(dir=folder))
            try:
                found[kind].append(measurement.run(kind, work))
            finally:
                shutil.rmtree(work)
    ratios = [ours / theirs for ours, theirs in zip(found[OURS], found[THEIRS], strict=True)]
    return Line(
        measurement.name,
        ours=statistics.median(found[OURS]),
        theirs=statistics.median(found[THEIRS]),
        ratio=statistics.median(ratios),
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
            print(
                f"{line.name:26} {line.ours:12.1f}/s   borgstore {line.theirs:10.1f}/s   "
                f"ratio {line.ratio:6.2f}   (floor {line.wanted:g})",
                flush=True,
            )
    if options.json:
        print(json.dumps([asdict(line) for line in lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
