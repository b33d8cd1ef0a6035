"""Repositories in Drime: throughput and requests for each blob, against pyrestserver.

    python -m benchmarks.drime --pyrestserver PATH/bin/pyrestserver

Drime is the double of the tests in a process of its own, with 30 ms before each answer, of its API
and of its storage. The client has restic's five connections, or as many as `--connections` says.
`--restic` times whole runs of restic in place of single blobs. `least` is a client that asks Drime
straight for the least that its API allows for each blob by itself (`drime_least`).
pyrestserver is measured if its program is named: `pip install pyrestserver==0.1.1 pydrime==0.8.2`
into an environment of its own. It sends up to 30 MiB in one request, which the live service took
once; its double takes that, but with `--live-limit`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from tests.servers.drime_process import DrimeProcess
from tests.servers.gateway import Gateway
from tests.servers.process import ServerProcess

from benchmarks import drime_least, peers, process_tree

CONNECTIONS = 5
"""restic's for a REST server."""

_PORT = 18471

_ATTEMPTS = 5
"""How often a blob is tried, as restic does: pyrestserver answers 500 where two of its uploads make
a folder at the same moment."""

refused: Counter[str] = Counter()
"""How many requests were answered with 500, by server."""


@dataclass(frozen=True)
class Server:
    """What is measured: its name, where it listens, and its process (0: none)."""

    name: str
    address: str
    pid: int


@dataclass(frozen=True)
class Figure:
    """What moving some blobs took.

    Attributes:
        server: whose.
        connections: of the client.
        what: init: a new repository; upload, download; list: all packs, as restic lists them;
            more: an upload into folders that are all there; or a command of restic's.
        blobs, size: how many, of how many bytes.
        seconds: for all together.
        megabytes: moved in a second.
        cpu: processor seconds of the server, and of Drime's double.
        requests: to Drime's API, for each blob.
        kinds: the same by kind, for all blobs.
    """

    server: str
    connections: int
    what: str
    blobs: int
    size: int
    seconds: float
    megabytes: float
    cpu: tuple[float, float]
    requests: float
    kinds: dict[str, int]


def blobs(count: int, size: int) -> list[bytes]:
    """Return blobs that neither repeat nor compress."""
    return [hashlib.shake_128(n.to_bytes(8, "big")).digest(size) for n in range(count)]


Work = Callable[[str, Sequence[tuple[str, bytes]]], None]
"""Uploads or downloads blobs, by one connection."""


def measure(
    server: Server, drime: DrimeProcess, values: Sequence[bytes], connections: int
) -> Iterator[Figure]:
    """Make a repository, upload the blobs into it, list and download them; then upload blobs into
    another one whose folders are all there."""
    named = _named(values)
    address, repository = server.address, f"/r{len(values[0])}/"
    init = partial(_ask, address, "POST", f"{repository}?create=true", None)
    yield _figure(server, "init", drime, values, init, connections)
    _ask(address, "POST", f"{repository}data/{named[0][0]}", named[0][1])
    _ask(address, "DELETE", f"{repository}data/{named[0][0]}", None)
    work = partial(_work, server, repository)
    for what in ("upload", "list", "download"):
        if what == "list":
            done = partial(_list, address, repository, {name for name, _ in named})
        else:
            done = partial(_in_shares, work, what, named, connections)
        yield _figure(server, what, drime, values, done, connections)
    grown = "/grown/"
    _ask(address, "POST", f"{grown}?create=true", None)
    work = partial(_work, server, grown)
    _in_shares(work, "upload", _one_for_each_folder(), CONNECTIONS)
    done = partial(_in_shares, work, "upload", named, connections)
    yield _figure(server, "more", drime, values, done, connections)


def _named(values: Sequence[bytes]) -> list[tuple[str, bytes]]:
    return [(hashlib.sha256(value).hexdigest(), value) for value in values]


def _one_for_each_folder() -> list[tuple[str, bytes]]:
    """Return a small blob for each of the 256 folders of a repository."""
    found: dict[str, tuple[str, bytes]] = {}
    for number in itertools.count():
        name, value = _named([b"%d" % number])[0]
        found.setdefault(name[:2], (name, value))
        if len(found) == 256:
            break
    return [*found.values()]


def measure_least(
    drime: DrimeProcess, values: Sequence[bytes], connections: int
) -> Iterator[Figure]:
    """Upload and download the blobs with nothing between."""
    named = _named(values)
    work = partial(drime_least.work, drime.url, drime.key, {})
    for what in ("upload", "download"):
        done = partial(_in_shares, work, what, named, connections)
        yield _figure(Server("least", "", 0), what, drime, values, done, connections)


def _in_shares(work: Work, what: str, named: Sequence[tuple[str, bytes]], connections: int) -> None:
    with ThreadPoolExecutor(connections) as pool:
        shares = [named[number::connections] for number in range(connections)]
        # The list makes the first error come out.
        [*pool.map(lambda share: work(what, share), shares)]


def _figure(
    server: Server,
    what: str,
    drime: DrimeProcess,
    values: Sequence[bytes],
    work: Callable[[], None],
    connections: int,
) -> Figure:
    drime.counts(forget=True)
    before = [process_tree.cpu_seconds(pid) if pid else 0.0 for pid in (server.pid, drime.pid)]
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    after = [process_tree.cpu_seconds(pid) if pid else 0.0 for pid in (server.pid, drime.pid)]
    kinds = drime.counts()
    moved = 0 if what in ("init", "list") else sum(map(len, values))
    return Figure(
        server.name,
        connections,
        what,
        len(values),
        len(values[0]),
        round(seconds, 3),
        round(moved / seconds / 1e6, 2),
        (round(after[0] - before[0], 2), round(after[1] - before[1], 2)),
        round(sum(kinds.values()) / len(values), 2),
        kinds,
    )


def _list(address: str, repository: str, names: set[str]) -> None:
    connection = HTTPConnection(address, timeout=120)
    with contextlib.closing(connection):
        accept = {"Accept": "application/vnd.x.restic.rest.v2"}
        connection.request("GET", f"{repository}data/", headers=accept)
        found = {each["name"] for each in json.loads(connection.getresponse().read())}
    if found != names:
        raise SystemExit(f"{len(found)} of {len(names)} blobs are listed")


def _work(server: Server, repository: str, what: str, named: Sequence[tuple[str, bytes]]) -> None:
    connection = HTTPConnection(server.address, timeout=120)
    with contextlib.closing(connection):
        for name, value in named:
            status, body = 0, b""
            for _ in range(_ATTEMPTS):
                try:
                    status, body = _answer(connection, f"{repository}data/{name}", value, what)
                except ConnectionError:  # it ends a connection whose request it refused
                    status, body = 500, b"the connection was reset"
                if status != 500:
                    break
                refused[server.name] += 1
                connection.close()
            if status != 200 or (what == "download" and body != value):
                told = "other bytes" if status == 200 else body[:200].decode("latin-1")
                raise SystemExit(f"{server.name}: {what} of {name}: status {status}, {told}")


def _answer(connection: HTTPConnection, path: str, value: bytes, what: str) -> tuple[int, bytes]:
    if what == "upload":
        connection.request("POST", path, body=value)
    else:
        connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def _ask(address: str, method: str, path: str, body: bytes | None) -> None:
    connection = HTTPConnection(address, timeout=120)
    with contextlib.closing(connection):
        connection.request(method, path, body=body)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise SystemExit(f"{method} {path}: status {response.status}")


@contextlib.contextmanager
def ours(drime: DrimeProcess, folder: Path) -> Iterator[Server]:
    """Run our server on the double."""
    command = [*Gateway.program(), "--backend", "drime", "--no-auth", "--listen", "127.0.0.1:0"]
    with ServerProcess(
        command,
        ready=r"start server on (\S+)",
        environment=_environment(drime, folder),
        directory=folder,
    ) as server:
        yield Server("backupgw", server.match[1], server.pid)


@contextlib.contextmanager
def pyrestserver(program: Path, drime: DrimeProcess, folder: Path) -> Iterator[Server]:
    """Run pyrestserver on the double."""
    command = [str(program), "serve", "--backend", "drime", "--no-auth"]
    with ServerProcess(
        [*command, "--listen", f"127.0.0.1:{_PORT}"],
        ready=r"(?i)upload verification|listening|running on|uvicorn running",
        environment=_environment(drime, folder),
        directory=folder,
    ) as server:
        _wait_for(f"127.0.0.1:{_PORT}")
        yield Server("pyrestserver", f"127.0.0.1:{_PORT}", server.pid)


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), contextlib.closing(HTTPConnection(address)) as probe:
            probe.connect()
            return
        time.sleep(0.05)
    raise SystemExit("pyrestserver does not listen")


def _environment(drime: DrimeProcess, folder: Path) -> dict[str, str]:
    return {
        "DRIME_API_KEY": drime.key,
        "DRIME_API_URL": drime.url,
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "PYTHONUNBUFFERED": "1",
    }


def measure_restic(
    server: Server, drime: DrimeProcess, folder: Path, values: Sequence[bytes], connections: int
) -> Iterator[Figure]:
    """Back up files with these contents, check, restore and prune them by restic."""
    tree, back = folder / f"tree-{server.name}", folder / f"back-{server.name}"
    tree.mkdir()
    for number, value in enumerate(values):
        (tree / f"{number % 16:x}").mkdir(exist_ok=True)
        (tree / f"{number % 16:x}" / str(number)).write_bytes(value)
    run = partial(_restic, server.address, connections, folder, tree)
    run("init")
    for what, words in (
        ("backup", ["backup", "."]),
        ("check", ["check", "--read-data"]),
        ("restore", ["restore", "latest", "--target", str(back)]),
        ("prune", ["forget", "--unsafe-allow-remove-all", "--tag", "", "--prune"]),
    ):
        yield _figure(server, what, drime, values, partial(run, *words), connections)
    shutil.rmtree(tree)
    shutil.rmtree(back)


def _restic(address: str, connections: int, home: Path, tree: Path, *words: str) -> None:
    options = ["-r", f"rest:http://{address}/restic/", "-o", f"rest.connections={connections}"]
    done = subprocess.run(
        [peers.find("restic"), "--no-cache", *options, *words],
        cwd=tree,
        env={**os.environ, "RESTIC_PASSWORD": "benchmark", "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"restic {' '.join(words)}: {done.stderr or done.stdout}")


def one_round(
    values: Sequence[bytes],
    latency: float,
    program: Path | None,
    connections: int,
    *,
    restic: bool = False,
    any_size: bool = True,
) -> Iterator[Figure]:
    """Measure each server on an account of its own."""
    folder = Path(tempfile.mkdtemp(prefix="drime-bench-"))
    try:
        with DrimeProcess(latency=latency) as drime:
            if not restic:
                yield from measure_least(drime, values, connections)
            with ours(drime, folder) as server:
                if restic:
                    yield from measure_restic(server, drime, folder, values, connections)
                else:
                    yield from measure(server, drime, values, connections)
        if program is not None:
            with (
                DrimeProcess(latency=latency, any_size=any_size) as drime,
                pyrestserver(program, drime, folder) as server,
            ):
                if restic:
                    yield from measure_restic(server, drime, folder, values, connections)
                else:
                    yield from measure(server, drime, values, connections)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drime")
    parser.add_argument(
        "--pyrestserver", type=lambda path: Path(path).absolute(), metavar="PROGRAM"
    )
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer")
    parser.add_argument("--blobs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--connections", type=int, nargs="+", default=[CONNECTIONS])
    parser.add_argument(
        "--live-limit",
        action="store_true",
        help="pyrestserver's double refuses a request above 5 MB, as the live service does",
    )
    parser.add_argument("--restic", action="store_true", help="time whole runs of restic")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 1_000_000, 16 << 20])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    figures: list[Figure] = []
    for size in chosen.sizes:
        values = blobs(max(5, chosen.blobs // max(1, size // 2_000_000)), size)
        for connections in chosen.connections * chosen.rounds:
            figures += one_round(
                values,
                chosen.latency,
                chosen.pyrestserver,
                connections,
                restic=chosen.restic,
                any_size=not chosen.live_limit,
            )
    if chosen.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
        return
    print(
        f"{os.cpu_count()} processors, {chosen.latency * 1000:.0f} ms before each answer of Drime"
    )
    print(table(figures))
    for name, count in refused.items():
        print(f"{name} answered {count} requests with status 500, or not; they were made again")


def table(figures: Sequence[Figure]) -> str:
    """The medians of all rounds as text; `x` is the rate over pyrestserver's, round by round."""
    rows = []
    groups: dict[tuple[int, int, str, str], list[Figure]] = {}
    for each in figures:
        key = (each.size, each.connections, each.what, each.server)
        groups.setdefault(key, []).append(each)
    for (size, connections, what, server), taken in groups.items():
        others = groups.get((size, connections, what, "pyrestserver"), [])
        ratios = [other.seconds / each.seconds for each, other in zip(taken, others, strict=False)]
        first = taken[0]
        rows.append(
            f"{server:<13} {what:<9} {connections:>3} connections {first.blobs:>3} x {size:>9} B "
            f"{median(each.seconds for each in taken):>7.3f} s "
            f"{median(each.megabytes for each in taken):>7.2f} MB/s "
            f"{f'x {median(ratios):.2f}' if ratios else '':<7} "
            f"CPU s {median(each.cpu[0] for each in taken):.2f}, double's "
            f"{median(each.cpu[1] for each in taken):.2f}  "
            f"{first.requests:>5.2f} requests/blob {first.kinds}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
