"""Repositories in Drime: throughput and requests for each blob, against pyrestserver.

    python -m benchmarks.drime --pyrestserver PATH/bin/pyrestserver

Drime is the double of the tests in a process of its own, with 30 ms before each answer, of its API
and of its storage. The client has restic's five connections. pyrestserver is measured if its
program is named: `pip install pyrestserver==0.1.1` into an environment of its own. It sends up to
30 MiB in one request, which the live service took once; its double takes that.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.servers.drime_process import DrimeProcess
from tests.servers.gateway import Gateway
from tests.servers.process import ServerProcess

CONNECTIONS = 5
"""restic's for a REST server."""

_PORT = 18471


@dataclass(frozen=True)
class Figure:
    """What moving some blobs took.

    Attributes:
        server: whose.
        what: upload, download, or list: all packs, as restic lists them.
        blobs, size: how many, of how many bytes.
        seconds: for all together.
        megabytes: moved in a second.
        requests: to Drime's API, for each blob.
        kinds: the same by kind, for all blobs.
    """

    server: str
    what: str
    blobs: int
    size: int
    seconds: float
    megabytes: float
    requests: float
    kinds: dict[str, int]


def blobs(count: int, size: int) -> list[bytes]:
    """Return blobs that neither repeat nor compress."""
    return [hashlib.shake_128(n.to_bytes(8, "big")).digest(size) for n in range(count)]


def measure(
    server: str, address: str, drime: DrimeProcess, values: Sequence[bytes]
) -> Iterator[Figure]:
    """Upload the blobs into a new repository, list and download them."""
    named = [(hashlib.sha256(value).hexdigest(), value) for value in values]
    repository = f"/r{len(values[0])}/"
    _ask(address, "POST", f"{repository}?create=true", None)
    _ask(address, "POST", f"{repository}data/{named[0][0]}", named[0][1])
    _ask(address, "DELETE", f"{repository}data/{named[0][0]}", None)
    for what in ("upload", "list", "download"):
        drime.counts(forget=True)
        started = time.perf_counter()
        if what == "list":
            _list(address, repository, {name for name, _ in named})
        else:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                shares = [named[number::CONNECTIONS] for number in range(CONNECTIONS)]
                # The list makes the first error come out.
                [*pool.map(lambda share: _work(address, repository, what, share), shares)]  # noqa: B023
        seconds = time.perf_counter() - started
        kinds = {kind: n for kind, n in drime.counts().items() if kind != "storage"}
        moved = 0 if what == "list" else sum(map(len, values))
        yield Figure(
            server,
            what,
            len(values),
            len(values[0]),
            round(seconds, 3),
            round(moved / seconds / 1e6, 2),
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


def _work(address: str, repository: str, what: str, named: Sequence[tuple[str, bytes]]) -> None:
    connection = HTTPConnection(address, timeout=120)
    with contextlib.closing(connection):
        for name, value in named:
            path = f"{repository}data/{name}"
            connection.request(
                "POST" if what == "upload" else "GET",
                path,
                body=value if what == "upload" else None,
            )
            response = connection.getresponse()
            body = response.read()
            if response.status != 200 or (what == "download" and body != value):
                raise SystemExit(f"{what} of {name}: status {response.status}, {len(body)} bytes")


def _ask(address: str, method: str, path: str, body: bytes | None) -> None:
    connection = HTTPConnection(address, timeout=120)
    with contextlib.closing(connection):
        connection.request(method, path, body=body)
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise SystemExit(f"{method} {path}: status {response.status}")


@contextlib.contextmanager
def ours(drime: DrimeProcess, folder: Path) -> Iterator[str]:
    """Run our server on the double; yields its address."""
    command = [*Gateway.program(), "--backend", "drime", "--no-auth", "--listen", "127.0.0.1:0"]
    with ServerProcess(
        command,
        ready=r"start server on (\S+)",
        environment=_environment(drime, folder),
        directory=folder,
    ) as server:
        yield server.match[1]


@contextlib.contextmanager
def pyrestserver(program: Path, drime: DrimeProcess, folder: Path) -> Iterator[str]:
    """Run pyrestserver on the double; yields its address."""
    command = [str(program), "serve", "--backend", "drime", "--no-auth"]
    with ServerProcess(
        [*command, "--listen", f"127.0.0.1:{_PORT}"],
        ready=r"(?i)upload verification|listening|running on|uvicorn running",
        environment=_environment(drime, folder),
        directory=folder,
    ):
        _wait_for(f"127.0.0.1:{_PORT}")
        yield f"127.0.0.1:{_PORT}"


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


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drime")
    parser.add_argument("--pyrestserver", type=Path, metavar="PROGRAM")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer")
    parser.add_argument("--blobs", type=int, default=40)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000_000, 16 << 20])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    figures: list[Figure] = []
    for size in chosen.sizes:
        values = blobs(max(5, chosen.blobs // max(1, size // 2_000_000)), size)
        folder = Path(tempfile.mkdtemp(prefix="drime-bench-"))
        try:
            with (
                DrimeProcess(latency=chosen.latency) as drime,
                ours(drime, folder) as address,
            ):
                figures += measure("backupgw", address, drime, values)
            if chosen.pyrestserver is not None:
                with (
                    DrimeProcess(latency=chosen.latency, any_size=True) as drime,
                    pyrestserver(chosen.pyrestserver, drime, folder) as address,
                ):
                    figures += measure("pyrestserver", address, drime, values)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if chosen.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
        return
    print(
        f"{os.cpu_count()} processors, {chosen.latency * 1000:.0f} ms before each answer of Drime"
    )
    for each in figures:
        print(
            f"{each.server:<13} {each.what:<9} {each.blobs:>3} x {each.size:>9} B "
            f"{each.seconds:>8.2f} s {each.megabytes:>8.2f} MB/s "
            f"{each.requests:>6.2f} requests/blob {each.kinds}"
        )


if __name__ == "__main__":
    main()
