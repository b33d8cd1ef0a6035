"""What a quota costs an upload over HTTP: the same uploads with --max-size and without, in one run.

    python -m benchmarks.quota [--rounds N] [--scale X] [--size BYTES] [--workers N] [--dir DIR]

Two servers have the same folder, so that both meet the same directories on the same part of the
disk: where a folder lies was seen to matter more than the quota does. They take turns, each first
in every other round; the ratio is taken round by round. What the ledger costs without HTTP:
benchmarks/ledger.py.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks import peers, report
from benchmarks.peers import Launch, MissingPeer, Program, Server
from benchmarks.phases import SMALL, Sample, Uploads
from benchmarks.wire import BadResponse

LIMIT = 1 << 50
"""Bytes of the quota: never near, as for most uploads."""


def with_quota(program: Program) -> Program:
    """The same server, with a limit on what it stores."""

    def command(launch: Launch) -> list[str]:
        return [*program.command(launch), "--max-size", str(LIMIT)]

    return replace(program, name="with quota", command=command)


def run(work: Path, program: Program, chosen: argparse.Namespace) -> dict[str, list[Sample]]:
    """Take `rounds` samples of each server in turn."""
    site = peers.make_site(work / "site")
    store = work / "store"
    store.mkdir()
    phase = Uploads(chosen.size, round(1000 * chosen.scale), tls=False)
    programs = [replace(program, name="without"), with_quota(program)]
    samples: dict[str, list[Sample]] = {each.name: [] for each in programs}
    with ExitStack() as running:
        servers = [running.enter_context(Server(p, store, site, tls=False)) for p in programs]
        phase.ready(servers[0])
        for server in servers:  # caches, and what SQLite makes at first
            phase.measure(server, -1)
        for number in range(chosen.rounds):
            for server in servers if number % 2 else reversed(servers):
                samples[server.program.name].append(phase.measure(server, number))
            print(f"  round {number + 1} of {chosen.rounds}", file=sys.stderr, flush=True)
    return samples


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 when a response was wrong or a program is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--scale", type=float, default=1.0, help="1: 5,000 uploads a sample")
    parser.add_argument("--size", type=int, default=SMALL, help="bytes of a blob")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where to work (default: the temporary folder)")
    chosen = parser.parse_args(argv)
    program = peers.backupgw(str(Path(sys.executable).parent / "backupgw"), chosen.workers)
    work = Path(tempfile.mkdtemp(prefix="backupgw-bench-", dir=chosen.dir))
    try:
        samples = run(work, program, chosen)
    except (BadResponse, MissingPeer) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for name, taken in samples.items():
        wall = median(s.wall / s.amount for s in taken) * 1e6
        cpu = median(s.server_cpu / s.amount for s in taken) * 1e6
        print(f"  {name:10}  {wall:6.0f} us an upload, {cpu:6.0f} us of the server's processors")
    pairs = list(zip(samples["without"], samples["with quota"], strict=True))
    print(
        f"  time with quota / without: {report.spread([b.wall / a.wall for a, b in pairs], 3)}\n"
        f"  processor time:            "
        f"{report.spread([b.server_cpu / a.server_cpu for a, b in pairs], 3)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
