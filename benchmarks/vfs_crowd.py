"""A folder of very many files, and uploads while the gateway works in the background.

    python -m benchmarks.vfs_crowd [--crowd N] [--purged N] [--files N] [--rounds N] [--dir DIR]

Measures how soon the first page of a folder of so many files comes, warm, and with --cold after the
machine's caches were dropped; and how fast small files are uploaded while a volume of that many
files is counted and a folder is purged, against the same uploads before and after. The first page
must come within 100 ms, and uploads must keep four fifths of their rate.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import httpx
from tests.servers.vfs_gateway import VfsGateway

from benchmarks.report import machine
from benchmarks.vfs_lanes import Lane, Plain
from benchmarks.vfsproxy import many

FIRST_PAGE = 0.1
"""Seconds in which it must come."""
KEPT = 0.8
"""Of the rate of uploads, at least."""
PAGE = 1000
IN_A_FOLDER = 50_000
"""Files of a folder that is purged, in each folder of it."""


def main() -> int:
    """Measure; 1 where something is too slow."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vfs_crowd", description=__doc__)
    parser.add_argument("--crowd", type=int, default=1_000_000, help="files in the large folder")
    parser.add_argument("--purged", type=int, default=200_000, help="files in the one that goes")
    parser.add_argument("--files", type=int, default=500, help="uploads in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cold", action="store_true", help="drop the machine's caches before some first pages"
    )
    parser.add_argument("--dir", type=Path, help="where everything lies")
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="bench-crowd-", dir=chosen.dir)
        work = Path(stack.enter_context(folder))
        gateway = stack.enter_context(VfsGateway(work, jobs=""))
        manager = stack.enter_context(gateway.manager())
        client = stack.enter_context(gateway.client("alice"))
        print("\n".join(f"{what}: {text}" for what, text in machine(work).items()))
        crowd = _made(client, gateway, "crowd", chosen.crowd, chosen.crowd)
        pages = _first_pages(client, crowd, cold=chosen.cold)
        print(f"the first {PAGE} of {chosen.crowd:,} files: " + ", ".join(pages[0]))
        kept = _uploads(client, manager, gateway, chosen)
    return 0 if pages[1] < FIRST_PAGE and kept >= KEPT else 1


def _made(client: httpx.Client, gateway: VfsGateway, name: str, count: int, each: int) -> str:
    """Make a folder with so many files, `each` in a folder of it; return its id."""
    made = client.post("/v1/folders", json={"name": name}).raise_for_status().json()["id"]
    root = gateway.volume / "folders" / made[:2] / made[2:4] / made[4:]
    for first in range(0, count, each):
        within = root / f"d{first}" if each < count else root
        within.mkdir(exist_ok=True)
        at = os.open(within, os.O_RDONLY)
        for number in range(first, min(first + each, count)):
            os.close(os.open(f"file-{number}", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.close(at)
    return str(made)


def _first_pages(client: httpx.Client, folder: str, *, cold: bool) -> tuple[list[str], float]:
    """Return words about them, and the seconds of the slowest kind."""
    found = {}
    kinds = {"cold": _drop_caches} if cold else {}
    for kind, prepare in {**kinds, "warm": _nothing}.items():
        taken = []
        for _ in range(5):
            prepare()
            begun = time.perf_counter()
            answer = client.get(f"/v1/folders/{folder}/entries", params={"limit": PAGE})
            taken.append(time.perf_counter() - begun)
            if len(answer.raise_for_status().json()["items"]) != PAGE:
                raise SystemExit("a page has too few entries")
        found[kind] = median(taken)
    return [f"{kind} {1000 * each:.0f} ms" for kind, each in found.items()], max(found.values())


def _drop_caches() -> None:
    os.sync()
    with contextlib.suppress(PermissionError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


def _nothing() -> None:
    return None


def _uploads(
    client: httpx.Client, manager: httpx.Client, gateway: VfsGateway, chosen: argparse.Namespace
) -> float:
    """Print rates with and without work in the background; return what is kept of the rate."""
    key = {"Authorization": client.headers["authorization"]}
    made = client.post("/v1/folders", json={"name": "uploads"}).raise_for_status().json()["id"]
    base = f"/v1/folders/{made}/files/"
    lane = Lane("", "", gateway.process.pid, partial(Plain, gateway.client_port, base, key))
    numbers = iter(range(1 << 30))

    def rate() -> float:
        return 1 / many(lane, f"file-{next(numbers)}", chosen.files).wall

    rate()
    kept = []
    for number in range(chosen.rounds):
        going = _made(client, gateway, f"going {number}", chosen.purged, IN_A_FOLDER)
        os.sync()
        before = rate()
        tasks = [
            manager.post("/v1/volumes/main/scan").raise_for_status().json()["task"],
            _purge(client, going),
        ]

        def states() -> list[str]:
            return [_state(manager, task) for task in tasks]  # noqa: B023

        _wait(lambda: "queued" not in states(), states)
        during = rate()
        found = states()
        for task in tasks:
            manager.delete(f"/v1/tasks/{task}").raise_for_status()
        _wait(lambda: "running" not in states(), states)
        after = rate()
        kept.append(during / ((before + after) / 2))
        print(
            f"uploads of small files: {before:,.0f}/s before, {during:,.0f}/s while a scan"
            f" ({found[0]} at its end) and a purge ({found[1]}) run, {after:,.0f}/s after:"
            f" {kept[-1]:.2f} kept"
        )
    return median(kept)


def _purge(client: httpx.Client, folder: str) -> str:
    client.delete(f"/v1/folders/{folder}").raise_for_status()
    return str(client.post(f"/v1/folders/{folder}/purge").raise_for_status().json()["task"])


def _state(manager: httpx.Client, task: str) -> str:
    return str(manager.get(f"/v1/tasks/{task}").raise_for_status().json()["state"])


def _wait(until: Callable[[], bool], what: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not until():
        if time.monotonic() > end:
            raise SystemExit(f"the tasks did not begin, or did not end: {what()}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
