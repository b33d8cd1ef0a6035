"""Files over HTTP: our virtual folders, Backend.AI's storage proxy, rclone's WebDAV, in one run.

    python -m benchmarks.vfsproxy [--rounds N] [--mib N] [--files N] [--lanes A,B] [--dir DIR]

All serve a folder of the same disk at the same time, with one process for clients each, and take
turns within a round; a ratio is always taken within a round, and the medians of the rounds are
shown with the least and the most. What one left dirty in the page cache is written out before the
next one's turn. Backend.AI's proxy is asked as its own clients ask it (a manager gives a token for
each transfer), and so is ours in one of its lanes; `tests.servers.backend_ai` says how it is
installed. It syncs an upload's bytes but not its name; rclone syncs nothing, and knows neither
users nor quotas. The last columns are processor time of the server for each file.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import httpx
from tests.servers import backend_ai, peers
from tests.servers.process import ServerProcess
from tests.servers.vfs_gateway import MANAGER_TOKEN, VfsGateway

from benchmarks.process_tree import cpu_nanoseconds
from benchmarks.report import machine, spread
from benchmarks.vfs_lanes import HOST, ByToken, Lane, Plain, Tus

MIB = 1 << 20
CLIENTS = 8
SMALL = 4096
"""Bytes of a small file."""
TIMEOUT = 120

OURS, OURS_TUS, OURS_TOKEN = "backupgw", "backupgw, tus", "backupgw, by token"
OURS_FAST = "backupgw, fast"
THEIRS, RCLONE = "Backend.AI", "rclone"

PLACES = """\
[vfs.volumes.fast]
type = "place"
place = "default"
[places.default]
url = "file://{folder}"
durability = "fast"
"""


@dataclass(frozen=True)
class Goal:
    """What a lane must reach, and should, as a multiple of another's rate."""

    phase: str
    lane: str
    other: str
    floor: float
    target: float


GOALS = (
    Goal("upload", OURS_TOKEN, THEIRS, 1.2, 1.5),
    Goal("upload", OURS_TUS, THEIRS, 1.2, 1.5),
    Goal("upload", OURS, RCLONE, 0.8, 1.0),
    Goal("download", OURS, RCLONE, 0.8, 1.0),
    Goal("small files", OURS_TOKEN, THEIRS, 2.0, 3.0),
    Goal("small files", OURS, THEIRS, 2.0, 3.0),
)


@dataclass(frozen=True)
class Taken:
    """Seconds for one file: of the clock, and of the server's processors; and how many uploads had
    to be begun anew, since the server failed."""

    wall: float
    processor: float
    repeated: int = 0


# -- the servers


@contextlib.contextmanager
def lanes(work: Path, wanted: Sequence[str]) -> Iterator[list[Lane]]:
    """Run all that is wanted."""
    found: list[Lane] = []
    with contextlib.ExitStack() as stack:
        if any(name.startswith(OURS) for name in wanted):
            found += _ours(stack, work)
        if THEIRS in wanted:
            found.append(_theirs(stack, work))
        if RCLONE in wanted:
            found.append(_rclone(stack, work))
        yield [lane for lane in found if lane.name in wanted]


def _ours(stack: contextlib.ExitStack, work: Path) -> Iterator[Lane]:
    gateway = stack.enter_context(
        VfsGateway(work / "vfs", more=PLACES.format(folder=work / "fast"), jobs="")
    )
    client = stack.enter_context(gateway.client("alice"))
    key = {"Authorization": client.headers["authorization"]}
    port, pid = gateway.client_port, gateway.process.pid
    for name, volume in ((OURS, "main"), (OURS_FAST, "fast")):
        made = client.post("/v1/folders", json={"name": f"bench-{volume}", "volume": volume})
        folder = f"/v1/folders/{made.raise_for_status().json()['id']}"
        caveat = "" if volume == "main" else 'durability = "fast": syncs nothing'
        yield Lane(name, caveat, pid, partial(Plain, port, f"{folder}/files/", key))
        if volume == "main":
            yield Lane(OURS_TUS, "", pid, partial(Tus, port, folder, key))
    with gateway.manager() as manager:
        vfid = _made_by_manager(manager)
    yield Lane(
        OURS_TOKEN,
        "",
        pid,
        partial(ByToken, port, gateway.manager_port, secret=MANAGER_TOKEN, folder=vfid),
    )


def _theirs(stack: contextlib.ExitStack, work: Path) -> Lane:
    server = stack.enter_context(backend_ai.BackendAi(work / "backend-ai"))
    secret = backend_ai.MANAGER_SECRET
    with httpx.Client(
        base_url=f"http://{HOST}:{server.manager_port}",
        headers={"X-BackendAI-Storage-Auth-Token": secret},
    ) as manager:
        vfid = _made_by_manager(manager)
    return Lane(
        THEIRS,
        "does not sync names; no quota",
        server.pid,
        partial(ByToken, server.client_port, server.manager_port, secret=secret, folder=vfid),
    )


def _made_by_manager(manager: httpx.Client) -> str:
    """Make a folder by the managers' API, and return its `vfid`."""
    scope = "user:00000000-0000-4000-8000-000000000001"
    vfid = f"{scope}/{'0123456789abcdef' * 2}"
    for path, body in (
        ("/quota-scope", {"volume": "main", "qsid": scope, "options": None}),
        ("/folder/create", {"volume": "main", "vfid": vfid, "options": None}),
    ):
        manager.post(path, json=body).raise_for_status()
    return vfid


def _rclone(stack: contextlib.ExitStack, work: Path) -> Lane:
    folder = work / "dav"
    folder.mkdir()
    server = stack.enter_context(
        ServerProcess(
            [
                str(peers.get(peers.RCLONE).path),
                *["--config", "/dev/null", "serve", "webdav", "--addr", f"{HOST}:0"],
                str(folder),
            ],
            ready=r"http://127\.0\.0\.1:(\d+)",
        )
    )
    port = int(server.match[1])
    return Lane(
        RCLONE, "syncs nothing; no users, no quota", server.pid, partial(Plain, port, "/", {})
    )


# -- the load


def one(lane: Lane, name: str, body: memoryview, *, upload: bool) -> Taken:
    """Send or fetch one large file."""
    with lane.open() as session:
        before, begun = cpu_nanoseconds(lane.pid), time.perf_counter()
        if upload:
            session.upload(name, body)
        else:
            session.download(name, len(body))
        wall = time.perf_counter() - begun
        return Taken(wall, (cpu_nanoseconds(lane.pid) - before) / 1e9)


def many(lane: Lane, prefix: str, count: int) -> Taken:
    """Upload small files from several clients, each a process with connections of its own."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(CLIENTS + 1)
    clients, pipes = [], []
    for first in range(CLIENTS):
        ours, theirs = context.Pipe(duplex=False)
        names = [f"{prefix}-{number}" for number in range(first, count, CLIENTS)]
        client = context.Process(target=_client, args=(lane, names, barrier, theirs))
        client.start()
        theirs.close()
        clients.append(client)
        pipes.append(ours)
    barrier.wait(TIMEOUT)
    before, begun = cpu_nanoseconds(lane.pid), time.monotonic()
    said = [pipe.recv() for pipe in pipes]
    spent = cpu_nanoseconds(lane.pid) - before
    for client in clients:
        client.join()
    for each in said:
        if isinstance(each, str):
            raise SystemExit(f"{lane.name}: {each}")
    ended = max(when for when, _ in said)
    return Taken((ended - begun) / count, spent / 1e9 / count, sum(each[1] for each in said))


def _client(lane: Lane, names: Sequence[str], barrier: Barrier, pipe: Pipe) -> None:
    body = memoryview(os.urandom(SMALL))
    try:
        with lane.open() as session:
            barrier.wait(TIMEOUT)
            for name in names:
                session.upload(name, body)
            pipe.send((time.monotonic(), session.repeated))
    except Exception:  # noqa: BLE001 - the parent ends with it; nobody else would hear
        pipe.send(traceback.format_exc(limit=4))


# -- the run

Rounds = dict[str, dict[str, list[Taken]]]
"""By phase and lane."""


def measure(found: Sequence[Lane], *, rounds: int, mib: int, files: int) -> Rounds:
    """Measure all lanes; the first round is for the caches, and is not kept."""
    taken: Rounds = {}
    body = memoryview(os.urandom(mib * MIB))
    for number in range(-1, rounds):
        for lane in found if number % 2 else reversed(found):
            os.sync()
            name = f"{lane.name}-large-{number + 1}".replace(", ", "-").replace(" ", "-")
            results = {
                "upload": one(lane, name, body, upload=True),
                "download": one(lane, name, body, upload=False),
            }
            os.sync()
            if files:
                results["small files"] = many(lane, f"{name}-small", files)
            if number >= 0:
                for phase, each in results.items():
                    taken.setdefault(phase, {}).setdefault(lane.name, []).append(each)
    return taken


def show(taken: Rounds, mib: int) -> None:
    """Print a table."""
    print("\n| | | rate | x Backend.AI's | x rclone's | ms of the processors |")
    print("|---|---|---|---|---|---|")
    for phase, by_lane in taken.items():
        amount, unit = (1, "files/s") if phase == "small files" else (mib, "MiB/s")
        for name, found in by_lane.items():
            cells = [spread([amount / each.wall for each in found], 0) + f" {unit}"]
            for other in (THEIRS, RCLONE):
                known = other in by_lane and other != name
                cells.append(f"{median(ratios(by_lane, name, other)):.2f}" if known else "")
            cells.append(f"{1000 * median(each.processor for each in found):.2f}")
            print(f"| {phase} | {name} | {' | '.join(cells)} |")
            if repeated := sum(each.repeated for each in found):
                print(f"| | {repeated} of these uploads failed, and were begun anew | | | | |")


def ratios(by_lane: dict[str, list[Taken]], name: str, other: str) -> list[float]:
    """Return how many times faster a lane was than another, in each round."""
    pairs = zip(by_lane[name], by_lane[other], strict=True)
    return [theirs.wall / ours.wall for ours, theirs in pairs]


def judge(taken: Rounds) -> bool:
    """Print what was to be reached and what was; return whether all floors were."""
    good = True
    for goal in GOALS:
        by_lane = taken.get(goal.phase, {})
        if goal.lane not in by_lane or goal.other not in by_lane:
            continue
        reached = median(ratios(by_lane, goal.lane, goal.other))
        good &= reached >= goal.floor
        word = "target" if reached >= goal.target else "floor" if reached >= goal.floor else "BELOW"
        print(
            f"{goal.phase}, {goal.lane}: {reached:.2f} x {goal.other}"
            f" (floor {goal.floor}, target {goal.target}): {word}"
        )
    return good


def main() -> int:
    """Measure, print a table; 1 where a floor was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vfsproxy", description=__doc__)
    every = (OURS, OURS_TUS, OURS_TOKEN, OURS_FAST, THEIRS, RCLONE)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=128, help="of the large file")
    parser.add_argument("--files", type=int, default=1000, help="small files in a round")
    parser.add_argument(
        "--lanes", default="/".join(every), help=f"some of {'/'.join(every)}, with / between"
    )
    parser.add_argument("--dir", type=Path, help="where everything lies")
    chosen = parser.parse_args()
    wanted = chosen.lanes.split("/")
    if unknown := set(wanted) - set(every):
        parser.error(f"there is no lane {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="bench-vfs-", dir=chosen.dir) as folder:
        work = Path(folder)
        with lanes(work, wanted) as found:
            taken = measure(found, rounds=chosen.rounds, mib=chosen.mib, files=chosen.files)
        print("\n".join(f"{what}: {text}" for what, text in machine(work).items()))
        print(f"Backend.AI's storage proxy {backend_ai.version() or 'is not installed'}")
        print(f"rclone {peers.get(peers.RCLONE).version}")
        print("\n".join(f"{lane.name}: {lane.caveat}" for lane in found if lane.caveat))
    show(taken, chosen.mib)
    print()
    return 0 if judge(taken) else 1


if __name__ == "__main__":
    sys.exit(main())
