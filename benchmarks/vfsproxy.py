"""Files over HTTP: our virtual folders against `rclone serve webdav`, in one run.

    python -m benchmarks.vfsproxy [--rounds N] [--mib N] [--files N] [--dir DIR]

Both serve a folder of the same disk. rclone never syncs; ours is measured as it is by default (each
file durable before it is acknowledged) and with `durability = "fast"`, which does as rclone does.
They take turns in each round, and a ratio is always taken within a round; shown are medians with
the least and the most. The client is the same for all: sockets, and nothing done to the bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.servers import peers
from tests.servers.process import ServerProcess
from tests.servers.vfs_gateway import VfsGateway

from benchmarks.report import machine, spread

MIB = 1 << 20
CLIENTS = 8
SMALL = 4096
"""Bytes of a small file."""
PIECE = 256 << 10
RCLONE = ("--config", "/dev/null", "serve", "webdav", "--addr", "127.0.0.1:0")

PLACES = """\
[vfs.volumes.fast]
type = "place"
place = "fast"
[places.fast]
url = "file://{folder}"
durability = "fast"
"""


@dataclass(frozen=True)
class Served:
    """A folder over HTTP.

    Attributes:
        base: path before that of a file.
        tus: path that creates uploads; None where there is no tus.
    """

    name: str
    port: int
    base: str
    headers: Mapping[str, str]
    tus: str | None = None

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)


def call(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Path | bytes | None = None,
) -> http.client.HTTPResponse:
    """Send a request and read its answer; bytes that come are counted and thrown away."""
    size = 0 if body is None else body.stat().st_size if isinstance(body, Path) else len(body)
    connection.putrequest(method, path)
    for name, value in headers.items():
        connection.putheader(name, value)
    if method not in ("GET", "HEAD", "DELETE"):
        connection.putheader("Content-Length", str(size))
    connection.endheaders()
    if isinstance(body, Path):
        with body.open("rb") as file:
            connection.sock.sendfile(file)
    elif body:
        connection.sock.sendall(body)
    answer = connection.getresponse()
    buffer = bytearray(PIECE)
    while answer.readinto(buffer):
        pass
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status}")
    return answer


def upload(served: Served, file: Path, name: str) -> None:
    """PUT a large file."""
    with contextlib.closing(served.connect()) as connection:
        call(connection, "PUT", f"{served.base}{name}", served.headers, file)


def upload_by_tus(served: Served, file: Path, name: str) -> None:
    """Create an upload and send it in one PATCH."""
    assert served.tus is not None
    told = {**served.headers, "Tus-Resumable": "1.0.0"}
    size = str(file.stat().st_size)
    called = f"filename {b64encode(name.encode()).decode()}"
    with contextlib.closing(served.connect()) as connection:
        created = call(
            connection,
            "POST",
            served.tus,
            {**told, "Upload-Length": size, "Upload-Metadata": called},
        )
        patch = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        call(connection, "PATCH", created.headers["location"], {**told, **patch}, file)


def download(served: Served, name: str) -> None:
    """GET a large file."""
    with contextlib.closing(served.connect()) as connection:
        call(connection, "GET", f"{served.base}{name}", served.headers)


def upload_many(served: Served, folder: str, count: int) -> None:
    """PUT small files, several at a time."""
    body = os.urandom(SMALL)

    def work(first: int) -> None:
        with contextlib.closing(served.connect()) as connection:
            for number in range(first, count, CLIENTS):
                call(connection, "PUT", f"{served.base}{folder}-{number}", served.headers, body)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextlib.contextmanager
def servers(work: Path) -> Iterator[list[Served]]:
    """Run all of them."""
    served: list[Served] = []
    dav = work / "dav"
    dav.mkdir()
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(
            VfsGateway(work / "vfs", more=PLACES.format(folder=work / "fast"))
        )
        client = stack.enter_context(gateway.client("alice"))
        for name, volume in (("backupgw", "main"), ("backupgw, fast", "fast")):
            made = client.post("/v1/folders", json={"name": f"bench-{volume}", "volume": volume})
            if made.status_code != 201:
                raise SystemExit(made.text)
            url = f"/v1/folders/{made.json()['id']}"
            key = {"Authorization": client.headers["authorization"], "Host": "t"}
            served.append(Served(name, gateway.client_port, f"{url}/files/", key, f"{url}/uploads"))
        program = str(peers.get(peers.RCLONE).path)
        rclone = stack.enter_context(
            ServerProcess(
                [
                    program,
                    *["--config", "/dev/null", "serve", "webdav", "--addr", "127.0.0.1:0"],
                    str(dav),
                ],
                ready=r"http://127\.0\.0\.1:(\d+)",
            )
        )
        served.append(Served("rclone", int(rclone.match[1]), "/", {"Host": "t"}))
        yield served


def main() -> int:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vfsproxy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=256, help="of the large file")
    parser.add_argument("--files", type=int, default=1000, help="small files in a round")
    parser.add_argument("--dir", type=Path, help="where everything lies")
    chosen = parser.parse_args()
    times: dict[str, dict[str, list[float]]] = {}

    def note(phase: str, name: str, taken: float) -> None:
        times.setdefault(phase, {}).setdefault(name, []).append(taken)

    with tempfile.TemporaryDirectory(prefix="bench-vfs-", dir=chosen.dir) as folder:
        work = Path(folder)
        file = work / "large"
        with file.open("wb") as out:
            for _ in range(chosen.mib):
                out.write(os.urandom(MIB))
        with servers(work) as served:
            for number in range(-1, chosen.rounds):
                for each in served if number % 2 else reversed(served):
                    name = f"large-{number + 1}"
                    taken = [
                        ("upload", seconds(lambda: upload(each, file, name))),  # noqa: B023
                        ("download", seconds(lambda: download(each, name))),  # noqa: B023
                        (
                            "small files",
                            seconds(
                                lambda: upload_many(each, f"small-{number + 1}", chosen.files)  # noqa: B023
                            ),
                        ),
                    ]
                    if each.tus is not None:
                        again = seconds(lambda: upload_by_tus(each, file, f"tus-{name}"))  # noqa: B023
                        taken.append(("upload by tus", again))
                    if number >= 0:  # the first is for the caches
                        for phase, value in taken:
                            note(phase, each.name, value)
        print("\n".join(f"{what}: {text}" for what, text in machine(work).items()))
    amounts = {"small files": (chosen.files, "files/s")}
    print("\n| | | rate | of rclone's |\n|---|---|---|---|")
    for phase, by_name in times.items():
        amount, unit = amounts.get(phase, (chosen.mib, "MiB/s"))
        other = by_name.get("rclone", times["upload"]["rclone"])
        for name, found in by_name.items():
            rates = spread([amount / value for value in found], 0)
            ratio = median(theirs / ours for theirs, ours in zip(other, found, strict=True))
            print(f"| {phase} | {name} | {rates} {unit} | {ratio:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
